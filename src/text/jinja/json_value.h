// JSON text -> Value, as Python's json.loads reads it: order of keys kept, the last of equal keys wins, integers of any
// length, floats as doubles, NaN and Infinity accepted.
#pragma once
#include <string_view>

#include "text/jinja/value.h"

namespace birkhoff::text::chat {

// Throws Error with the byte offset: not JSON, not UTF-8, nested deeper than kMaxDepth, a lone
// surrogate, more than a million values.
// from_content: strings (and keys) are marked as contents of a conversation.
Value parse_json(std::string_view text, bool from_content = false);

}  // namespace birkhoff::text::chat
