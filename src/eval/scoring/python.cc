#include "eval/scoring/python.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "text/jinja/characters.h"
#include "text/jinja/python_text.h"
#include "text/unicode/unicode.h"

namespace birkhoff::eval {
namespace {

using text::chat::MaskedText;

constexpr size_t kMaxIntDigits = 4300;  // sys.int_info.default_max_str_digits

bool is_c_space(char c) { return c == ' ' || (c >= 9 && c <= 13); }

// Digits of Unicode stand in runs of ten from their zero on.
char digit_of(char32_t c) {
  char32_t zero = c;
  while (zero > 0 && text::char_classes()(zero - 1) == text::CharClass::decimal) --zero;
  return static_cast<char>('0' + (c - zero) % 10);
}

// What float() and int() look at: digits and white space of other scripts in ASCII, without white space at the ends.
// The separators 0x1c to 0x1f, white space elsewhere in Python, are none here.
std::string number_text(std::string_view s) {
  std::string out;
  for (size_t i = 0; i < s.size();) {
    const char32_t c = text::chat::utf8_next(s, i);
    if (c < 0x7f)
      out += static_cast<char>(c);
    else if (text::chat::is_space(c))
      out += ' ';
    else
      out += text::chat::is_digit(c) ? digit_of(c) : '?';
  }
  const auto begin = std::find_if_not(out.begin(), out.end(), is_c_space);
  const auto end = std::find_if_not(out.rbegin(), std::make_reverse_iterator(begin), is_c_space).base();
  return std::string(begin, end);
}

// Digits with single underscores between them from i on; i moves behind them. False: an underscore elsewhere.
bool take_digits(const std::string& s, size_t& i, std::string& digits) {
  const size_t begin = i;
  for (; i < s.size() && (is_ascii_digit(s[i]) || s[i] == '_'); ++i) {
    if (s[i] != '_')
      digits += s[i];
    else if (i == begin || s[i - 1] == '_' || i + 1 == s.size() || !is_ascii_digit(s[i + 1]))
      return false;
  }
  return true;
}

std::optional<double> special_float(const std::string& s, size_t sign) {
  const std::string word = lower(s.substr(sign));
  const double infinity = std::numeric_limits<double>::infinity();
  if (word == "nan") return std::nan("");
  if (word != "inf" && word != "infinity") return std::nullopt;
  return s[0] == '-' ? -infinity : infinity;
}

}  // namespace

std::string stripped(std::string_view s) {
  return text::chat::py_strip(MaskedText(std::string(s)), std::nullopt, text::chat::Side::both).bytes();
}
std::string lower(const std::string& s) { return text::chat::py_lower(MaskedText(s)).bytes(); }
std::string upper(const std::string& s) { return text::chat::py_upper(MaskedText(s)).bytes(); }

std::vector<std::string> split_at(std::string_view s, std::string_view separator) {
  std::vector<std::string> parts;
  for (size_t at = s.find(separator); at != s.npos; at = s.find(separator)) {
    parts.emplace_back(s.substr(0, at));
    s.remove_prefix(at + separator.size());
  }
  parts.emplace_back(s);
  return parts;
}

std::vector<std::string> words(std::string_view s) {
  std::vector<std::string> out;
  for (const MaskedText& w : text::chat::py_split(MaskedText(std::string(s)), std::nullopt, -1))
    out.push_back(w.bytes());
  return out;
}

std::string replaced(std::string s, std::string_view old, std::string_view with) {
  if (s.find(old) == s.npos) return s;
  std::string out;
  size_t from = 0;
  for (size_t at = s.find(old); at != s.npos; at = s.find(old, from)) {
    out.append(s, from, at - from).append(with);
    from = at + old.size();
  }
  return out.append(s, from);
}

std::string without(const std::string& s, bool (*dropped)(char)) {
  std::string out;
  std::copy_if(s.begin(), s.end(), std::back_inserter(out), [&](char c) { return !dropped(c); });
  return out;
}

bool is_ascii_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_ascii_digit(char c) { return c >= '0' && c <= '9'; }
bool is_ascii_punctuation(char c) { return c > ' ' && c < 127 && !is_ascii_letter(c) && !is_ascii_digit(c); }

std::string_view first_char(std::string_view s) {
  return s.substr(0, text::chat::utf8_length(static_cast<unsigned char>(s[0])));
}

bool is_word_char(char32_t c) {
  if (c == '_') return true;
  const text::CharClass k = text::char_classes()(c);
  return k == text::CharClass::letter || text::is_number(k);
}
bool starts_with_word(std::string_view s) {
  size_t i = 0;
  return !s.empty() && is_word_char(text::chat::utf8_next(s, i));
}
bool ends_with_word(std::string_view s) { return !s.empty() && is_word_char(text::last_char(s)); }

std::optional<double> to_float(std::string_view given) {
  const std::string s = number_text(given);
  if (s.empty()) return std::nullopt;
  size_t i = s[0] == '+' || s[0] == '-';
  if (i < s.size() && is_ascii_letter(s[i])) return special_float(s, i);
  std::string number = s[0] == '-' ? "-" : "";
  const size_t sign = number.size();
  if (!take_digits(s, i, number)) return std::nullopt;
  if (i < s.size() && s[i] == '.') {
    number += s[i++];
    if (!take_digits(s, i, number)) return std::nullopt;
  }
  if (number.find_first_of("0123456789", sign) == number.npos) return std::nullopt;
  if (i < s.size() && (s[i] == 'e' || s[i] == 'E')) {
    number += s[i++];
    if (i < s.size() && (s[i] == '+' || s[i] == '-')) number += s[i++];
    const size_t digits = number.size();
    if (!take_digits(s, i, number) || number.size() == digits) return std::nullopt;
  }
  if (i != s.size()) return std::nullopt;
  static const locale_t c_locale = newlocale(LC_ALL_MASK, "C", nullptr);
  return strtod_l(number.c_str(), nullptr, c_locale);
}

bool is_int(std::string_view given) {
  const std::string s = number_text(given);
  size_t i = !s.empty() && (s[0] == '+' || s[0] == '-');
  std::string digits;
  return take_digits(s, i, digits) && i == s.size() && !digits.empty() && digits.size() <= kMaxIntDigits;
}

bool is_printed_int(std::string_view s) {
  if (s == "0") return true;
  if (!s.empty() && s[0] == '-') s.remove_prefix(1);
  return !s.empty() && s[0] != '0' && s.find_first_not_of("0123456789") == s.npos && s.size() <= kMaxIntDigits;
}

bool is_close(double a, double b, double tolerance) {
  if (a == b) return true;
  if (std::isinf(a) || std::isinf(b)) return false;
  return std::abs(a - b) <= std::max(1e-9 * std::max(std::abs(a), std::abs(b)), tolerance);
}

}  // namespace birkhoff::eval
