// UTF-8, one code point at a time. Functions that say "valid" read text that first_invalid() accepted.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace birkhoff::text {

// Byte offset of the first sequence that is not UTF-8 (overlong forms, surrogates and cut ends included); text.size()
// when all is valid.
size_t first_invalid(std::string_view text);

// The code point at p of valid text; p moves behind it.
inline char32_t next_char(const char*& p) {
  const auto b = [&](int i) { return static_cast<char32_t>(static_cast<unsigned char>(p[i])); };
  const char32_t c = b(0);
  if (c < 0x80) {
    ++p;
    return c;
  }
  if (c < 0xE0) {
    const char32_t r = (c & 0x1F) << 6 | (b(1) & 0x3F);
    p += 2;
    return r;
  }
  if (c < 0xF0) {
    const char32_t r = (c & 0x0F) << 12 | (b(1) & 0x3F) << 6 | (b(2) & 0x3F);
    p += 3;
    return r;
  }
  const char32_t r = (c & 0x07) << 18 | (b(1) & 0x3F) << 12 | (b(2) & 0x3F) << 6 | (b(3) & 0x3F);
  p += 4;
  return r;
}

// The last code point of valid, non-empty text.
char32_t last_char(std::string_view text);
void append_char(char32_t c, std::string& out);
// Every maximal part that is not UTF-8 becomes U+FFFD, as the Unicode standard recommends (3.9, "substitution of
// maximal subparts").
std::string replace_invalid(std::string_view bytes);
// Bytes at the end of `bytes` that may be the beginning of a character: 0 to 3.
size_t open_tail(std::string_view bytes);

}  // namespace birkhoff::text
