// Tokens of formulas in LaTeX.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace birkhoff::eval {

struct LatexToken {
  enum class Kind : uint8_t { end, letter, digit, command, differential, quotes, relation, character };
  Kind kind = Kind::end;
  std::string text;  // of commands with the backslash, of a differential its variable
  bool is(const char* s) const { return text == s; }
};

// Of commands without the backslash: \sin and the like; those that mean something else than a symbol.
bool is_function(std::string_view command);
bool is_reserved(std::string_view command);

// Tokens in their order, made when they are asked for: what stands behind the end of a formula may be anything.
class LatexTokens {
 public:
  explicit LatexTokens(std::string text) : text_(std::move(text)) {}
  // Token i. Throws NoToken when there is none in the grammar.
  const LatexToken& at(size_t i);

 private:
  LatexToken next();
  LatexToken command();
  LatexToken letter();
  bool skip_one();

  std::string text_;
  size_t i_ = 0;
  std::vector<LatexToken> tokens_;
};

}  // namespace birkhoff::eval
