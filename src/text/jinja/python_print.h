// How Python prints values: str(), repr(), and json.dumps with the separators ", " and ": " and without ASCII escapes.
#pragma once
#include <cstdint>
#include <string>

#include "text/jinja/value.h"

namespace birkhoff::text::chat {

std::string float_repr(double d);       // 0.1, 1e-07, -0.0, inf, nan
std::string float_json(double d);       // the same, but Infinity, -Infinity, NaN
MaskedText python_str(const Value& v);  // what {{ v }} prints
MaskedText python_repr(const Value& v);

struct JsonStyle {
  int indent = -1;  // < 0: one line
  bool sort_keys = false, ascii = false;
  std::string item_separator, key_separator = ": ";  // item_separator empty: ", " on one line, "," with an indent
  size_t max_bytes = SIZE_MAX;                       // more is refused with Error
};
// Throws Error for what JSON cannot hold. Marks of strings are carried; punctuation is unmarked.
MaskedText json_dump(const Value& v, const JsonStyle& style = {});
// "text" with JSON escapes, marks carried.
void json_string(const MaskedText& text, bool ascii, MaskedText& out);

}  // namespace birkhoff::text::chat
