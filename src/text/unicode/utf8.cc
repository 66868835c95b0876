#include "text/unicode/utf8.h"

#include <cstdint>

namespace birkhoff::text {
namespace {

struct Sequence {
  size_t length;  // bytes of the character, or of the maximal part that begins one
  bool complete;
};

// What stands at `at`. Table 3-7 of the Unicode standard: the second byte's range depends on the first.
Sequence sequence_at(std::string_view s, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(s[i]); };
  const uint8_t lead = byte(at);
  if (lead < 0x80) return {1, true};
  size_t need = 0;
  uint8_t low = 0x80, high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF) {
    need = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    need = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    need = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {1, false};
  }
  size_t n = 1;
  for (; n < need && at + n < s.size(); ++n) {
    const uint8_t c = byte(at + n);
    if (c < low || c > high) return {n, false};
    low = 0x80;
    high = 0xBF;
  }
  return {n, n == need};
}

}  // namespace

size_t first_invalid(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const Sequence s = sequence_at(text, at);
    if (!s.complete) return at;
    at += s.length;
  }
  return at;
}

char32_t last_char(std::string_view text) {
  const char* p = text.data() + text.size() - 1;
  while ((static_cast<unsigned char>(*p) & 0xC0) == 0x80) --p;
  return next_char(p);
}

void append_char(char32_t c, std::string& out) {
  const auto put = [&](char32_t b) { out.push_back(static_cast<char>(b)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6);
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

std::string replace_invalid(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  size_t from = 0;
  while (from < bytes.size()) {
    const std::string_view rest = bytes.substr(from);
    const size_t good = first_invalid(rest);
    out.append(rest.substr(0, good));
    if (good == rest.size()) break;
    out.append("\xEF\xBF\xBD");
    from += good + sequence_at(rest, good).length;
  }
  return out;
}

size_t open_tail(std::string_view bytes) {
  for (size_t back = 1; back <= 3 && back <= bytes.size(); ++back) {
    const size_t at = bytes.size() - back;
    if ((static_cast<uint8_t>(bytes[at]) & 0xC0) == 0x80) continue;  // not a first byte
    const Sequence s = sequence_at(bytes, at);
    return !s.complete && s.length == back && static_cast<uint8_t>(bytes[at]) >= 0xC2 &&
                   static_cast<uint8_t>(bytes[at]) <= 0xF4
               ? back
               : 0;
  }
  return 0;
}

}  // namespace birkhoff::text
