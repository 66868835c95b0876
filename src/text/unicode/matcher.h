// Finds the parts of a text that a pattern of tokenizer.json matches. Patterns are read as Oniguruma reads them, the
// engine of the reference library. Those of the DeepSeek, GPT-2, Qwen and Llama 3 families have scanners of their own
// that take linear time on any text; all others run in Oniguruma, whose limit on backtracking ends hostile text with an
// error.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace birkhoff::text {

struct Span {
  uint32_t begin, end;  // bytes
  bool operator==(const Span&) const = default;
};

class Matcher {
 public:
  virtual ~Matcher() = default;
  // Appends all matches from left to right, none overlapping, offsets within piece. piece: valid UTF-8, under 4 GiB;
  // its ends are the ends of the text for ^, $ and look-around. Thread-safe. Throws Error when the engine gives up.
  virtual void find(std::string_view piece, std::vector<Span>& matches) const = 0;
};

std::unique_ptr<Matcher> make_literal_matcher(std::string literal);
// Throws Error naming the pattern when it is not a regular expression.
std::unique_ptr<Matcher> make_regex_matcher(const std::string& pattern);

// The parts, for tests: always Oniguruma; a scanner or nullptr when there is none for this pattern.
std::unique_ptr<Matcher> make_oniguruma_matcher(const std::string& pattern);
std::unique_ptr<Matcher> make_scanner(const std::string& pattern);
// The scanner of [class], [class]+, \p{X}{m,n} and the like, with an optional \s? in front; nullptr for anything else.
std::unique_ptr<Matcher> make_class_run(const std::string& pattern);

inline constexpr char kGpt2Pattern[] = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr char kQwenPattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr char kLlama3Pattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

}  // namespace birkhoff::text
