// Characters as Python sees them, in strings that are known to be valid UTF-8 (text/unicode/utf8.h checks).
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "text/unicode/utf8.h"

namespace birkhoff::text::chat {

inline size_t utf8_length(unsigned char lead) { return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4; }

// Code point at byte i of valid text; i moves behind it.
inline char32_t utf8_next(std::string_view s, size_t& i) {
  const auto b = [&](size_t k) { return static_cast<unsigned char>(i + k < s.size() ? s[i + k] : 0x80); };
  const size_t n = utf8_length(b(0));
  char32_t c = b(0);
  if (n == 2) c = (c & 0x1f) << 6 | (b(1) & 0x3fu);
  if (n == 3) c = (c & 0x0f) << 12 | (b(1) & 0x3fu) << 6 | (b(2) & 0x3fu);
  if (n == 4) c = (c & 0x07) << 18 | (b(1) & 0x3fu) << 12 | (b(2) & 0x3fu) << 6 | (b(3) & 0x3fu);
  i = std::min(i + n, s.size());
  return c;
}

inline size_t utf8_count(std::string_view s) {
  size_t n = 0;
  for (const char c : s) n += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  return n;
}

// Python's notions, by code point.
bool is_space(char32_t c);      // str.isspace
bool is_printable(char32_t c);  // str.isprintable but for unassigned code points, which count as printable
bool is_alpha(char32_t c);
bool is_digit(char32_t c);
bool is_upper(char32_t c);
bool is_lower(char32_t c);
// Case mappings are those of the C.UTF-8 locale, one code point to one, but for the upper sharp s and the lower dotted
// I.
void append_upper(std::string& out, char32_t c);
void append_lower(std::string& out, char32_t c);
// Whether str.lower makes the capital sigma at byte `at` of s a final one.
bool is_final_sigma(std::string_view s, size_t at);

}  // namespace birkhoff::text::chat
