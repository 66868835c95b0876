#include "text/unicode/unicode.h"

#include <map>
#include <string>

namespace birkhoff::text {
namespace {
constexpr uint32_t kRuns[] = {
#include "text/unicode/unicode_classes.inc"
};
constexpr size_t kBlock = 256;
}  // namespace

ClassTable::ClassTable() {
  std::map<std::string, uint16_t> known;
  size_t run = 0;
  constexpr size_t kCount = sizeof(kRuns) / sizeof(kRuns[0]);
  std::string block(kBlock, '\0');
  for (size_t b = 0; b < index_.size(); ++b) {
    for (size_t i = 0; i < kBlock; ++i) {
      const uint32_t code = static_cast<uint32_t>(b * kBlock + i);
      while (run + 1 < kCount && kRuns[run + 1] >> 4 <= code) ++run;
      block[i] = static_cast<char>(kRuns[run] & 15);
    }
    const auto [at, fresh] = known.emplace(block, static_cast<uint16_t>(known.size()));
    if (fresh) blocks_.insert(blocks_.end(), block.begin(), block.end());
    index_[b] = at->second;
  }
}

const ClassTable& char_classes() {
  static const ClassTable table;
  return table;
}

bool is_word(char32_t c) {
  switch (char_classes()(c)) {
    case CharClass::letter:
    case CharClass::mark:
    case CharClass::decimal:
    case CharClass::letter_number:
    case CharClass::connector:
      return true;
    case CharClass::symbol:  // letters in circles and squares are alphabetic symbols
      return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
             (c >= 0x1F170 && c <= 0x1F189);
    default:
      return c == 0x200C || c == 0x200D;
  }
}

}  // namespace birkhoff::text
