#include "text/tokenizer/byte_symbols.h"

#include "text/unicode/utf8.h"

namespace birkhoff::text {
namespace {
constexpr char32_t kFirstOther = 0x100, kOthers = 68;

struct Tables {
  std::array<char32_t, 256> symbol;
  std::array<int16_t, kFirstOther + kOthers> byte;
  Tables() {
    byte.fill(-1);
    char32_t next = kFirstOther;
    for (char32_t b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      symbol[b] = printable ? b : next++;
      byte[symbol[b]] = static_cast<int16_t>(b);
    }
  }
};
const Tables& tables() {
  static const Tables t;
  return t;
}
}  // namespace

const std::array<char32_t, 256>& byte_symbols() { return tables().symbol; }
int symbol_byte(char32_t c) { return c < tables().byte.size() ? tables().byte[c] : -1; }

std::string to_symbols(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char b : bytes) append_char(byte_symbols()[static_cast<unsigned char>(b)], out);
  return out;
}

}  // namespace birkhoff::text
