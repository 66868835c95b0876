// Template source -> tokens, with the whitespace rules of Jinja. Of the dialect of conversations trim_blocks and
// lstrip_blocks: a newline after a block is dropped, so are spaces before a block on its own line; "-" strips more, "+"
// strips nothing.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/jinja.h"

namespace birkhoff::text::chat::jinja {

enum class Token : uint8_t {
  data,
  print_begin,
  print_end,
  block_begin,
  block_end,
  name,
  string,
  integer,
  real,
  op,
  end
};

struct Lexeme {
  Token token = Token::end;
  std::string text;  // data and strings decoded; names, numbers (no underscores) and operators as written
  int line = 0;
};

// Throws Error: not UTF-8, larger than 256 KiB, a tag, string or bracket that is not closed, a character that no token
// has.
std::vector<Lexeme> tokenize(std::string_view source, Dialect dialect);

[[noreturn]] void template_error(int line, const std::string& what, const std::string& hint = "");

}  // namespace birkhoff::text::chat::jinja
