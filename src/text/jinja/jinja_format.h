// "..." % values and "...".format(...): Python's two ways to format.
#pragma once
#include "text/jinja/jinja_interp.h"

namespace birkhoff::text::chat::jinja {

// Both throw Error: too few or too many values, an unknown or unsupported conversion.
MaskedText percent_format(Interp& interp, const MaskedText& format, const Value& values);
// {}, {0}, {name}, {0.attribute}, {0[key]}, !r, !s and format specs of the form
// [[fill]align][sign][0][width][,][.precision][type].
MaskedText brace_format(Interp& interp, const MaskedText& format, CallArgs& args);

}  // namespace birkhoff::text::chat::jinja
