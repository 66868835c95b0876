#include "text/jinja/characters.h"

#include <utf8proc.h>

#include <clocale>
#include <cwctype>

#include "text/unicode/unicode.h"

namespace birkhoff::text::chat {
namespace {

// The program's locale may be anything; the C.UTF-8 locale of glibc has the mappings of Unicode.
locale_t unicode_locale() {
  static const locale_t locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  return locale;
}

wint_t wide(char32_t c) { return static_cast<wint_t>(c); }

// Case_Ignorable of Unicode.
bool is_case_ignorable(char32_t c) {
  static constexpr std::u32string_view kPunctuation =
      U"'.:\u00b7\u0387\u055f\u05f4\u2018\u2019\u2024\u2027\ufe13"
      U"\ufe52\ufe55\uff07\uff0e\uff1a";
  if (kPunctuation.find(c) != kPunctuation.npos) return true;
  const utf8proc_category_t k = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_ME || k == UTF8PROC_CATEGORY_CF ||
         k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_SK;
}

}  // namespace

bool is_space(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool is_printable(char32_t c) {
  if (c < 0x7f) return c >= 0x20;
  if (c < 0xa1 || c == 0xad) return false;
  const auto in = [c](char32_t low, char32_t high) { return c >= low && c <= high; };
  return !(in(0x600, 0x605) || c == 0x61c || c == 0x6dd || c == 0x70f || in(0x890, 0x891) || c == 0x8e2 ||
           c == 0x1680 || c == 0x180e || in(0x2000, 0x200f) || in(0x2028, 0x202f) || in(0x205f, 0x206f) ||
           c == 0x3000 || in(0xd800, 0xf8ff) || c == 0xfeff || in(0xfff9, 0xfffb) || c == 0x110bd || c == 0x110cd ||
           in(0x13430, 0x1343f) || in(0x1bca0, 0x1bca3) || in(0x1d173, 0x1d17a) || in(0xe0001, 0xe007f) ||
           in(0xf0000, 0x10ffff));
}

bool is_alpha(char32_t c) { return char_classes()(c) == CharClass::letter; }
bool is_digit(char32_t c) { return char_classes()(c) == CharClass::decimal; }
bool is_upper(char32_t c) { return iswupper_l(wide(c), unicode_locale()); }
bool is_lower(char32_t c) { return iswlower_l(wide(c), unicode_locale()); }

void append_upper(std::string& out, char32_t c) {
  if (c == 0xdf)
    out += "SS";
  else
    append_char(static_cast<char32_t>(towupper_l(wide(c), unicode_locale())), out);
}

void append_lower(std::string& out, char32_t c) {
  if (c == 0x130) return static_cast<void>(out += "i\u0307");
  append_char(static_cast<char32_t>(towlower_l(wide(c), unicode_locale())), out);
}

bool is_final_sigma(std::string_view s, size_t at) {
  const auto cased = [](char32_t c) { return is_upper(c) || is_lower(c); };
  size_t after = at + utf8_length(static_cast<unsigned char>(s[at]));
  while (after < s.size()) {
    const char32_t c = utf8_next(s, after);
    if (is_case_ignorable(c)) continue;
    if (cased(c)) return false;
    break;
  }
  while (at > 0) {
    const char32_t c = last_char(s.substr(0, at));
    if (!is_case_ignorable(c)) return cased(c);
    do --at;
    while ((static_cast<unsigned char>(s[at]) & 0xc0) == 0x80);
  }
  return false;
}

}  // namespace birkhoff::text::chat
