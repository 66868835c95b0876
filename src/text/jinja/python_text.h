// Python's str methods on marked text. Positions and counts are code points; marks follow the characters.
#pragma once
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "text/jinja/masked_text.h"

namespace birkhoff::text::chat {

enum class Side : uint8_t { both, left, right };

// chars: nothing strips white space.
MaskedText py_strip(const MaskedText& s, const std::optional<std::string>& chars, Side side);
// separator: nothing splits at white space and drops empty parts. limit < 0: all. The separator is not empty.
std::vector<MaskedText> py_split(const MaskedText& s, const std::optional<std::string>& separator, int64_t limit);
std::vector<MaskedText> py_rsplit(const MaskedText& s, const std::optional<std::string>& separator, int64_t limit);
std::vector<MaskedText> py_splitlines(const MaskedText& s, bool keep_ends);
// limit < 0: all. An empty old matches between all characters.
MaskedText py_replace(const MaskedText& s, const std::string& old, const MaskedText& with, int64_t limit);
MaskedText py_upper(const MaskedText& s);
MaskedText py_lower(const MaskedText& s);
MaskedText py_capitalize(const MaskedText& s);
MaskedText py_title(const MaskedText& s);  // str.title
MaskedText py_swapcase(const MaskedText& s);
// Pads to width code points: side says where the text stays.
MaskedText py_pad(const MaskedText& s, int64_t width, std::string_view fill, Side text_side);
MaskedText py_reverse(const MaskedText& s);

}  // namespace birkhoff::text::chat
