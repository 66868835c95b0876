// Classes of code points, Unicode 16: what the regular expressions and pre-tokenizers of tokenizer.json tell apart.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace birkhoff::text {

enum class CharClass : uint8_t {
  other,
  letter,
  mark,
  decimal,
  letter_number,
  other_number,
  punctuation,
  connector,
  symbol
};

// Two levels: 256 code points share a block, equal blocks are stored once.
class ClassTable {
 public:
  ClassTable();
  CharClass operator()(char32_t c) const {
    return static_cast<CharClass>(blocks_[static_cast<size_t>(index_[c >> 8]) << 8 | (c & 0xFF)]);
  }

 private:
  std::array<uint16_t, 0x1100> index_;
  std::vector<uint8_t> blocks_;
};
const ClassTable& char_classes();

// White_Space of Unicode, the \s of both regular expression engines of the reference library.
inline bool is_space(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
         c == 0x202F || c == 0x205F || c == 0x3000;
}
inline bool is_number(CharClass k) {
  return k == CharClass::decimal || k == CharClass::letter_number || k == CharClass::other_number;
}
inline bool is_punctuation(CharClass k) { return k == CharClass::punctuation || k == CharClass::connector; }
// \w of Unicode Technical Standard 18 annex C: alphabetic, mark, decimal digit, connector, join control.
bool is_word(char32_t c);

}  // namespace birkhoff::text
