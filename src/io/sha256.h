// SHA-256, by libcrypto.
#pragma once
#include <string>
#include <string_view>

namespace birkhoff::io {

// 64 hexadecimal digits, lower case.
std::string sha256(std::string_view bytes);

}  // namespace birkhoff::io
