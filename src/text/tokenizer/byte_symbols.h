// The 256 printable characters that byte-level tokenizers write bytes as (GPT-2): printable Latin-1 as itself, the rest
// from U+0100 on.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace birkhoff::text {

const std::array<char32_t, 256>& byte_symbols();
// The byte that c stands for, -1 when none.
int symbol_byte(char32_t c);
std::string to_symbols(std::string_view bytes);

}  // namespace birkhoff::text
