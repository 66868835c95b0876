// What the harness says in Python: str and float, for scores that are equal to its own. All texts are valid UTF-8.
#pragma once
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace birkhoff::eval {

// An exception of Python that the rules of a metric let happen.
struct Raised : std::exception {
  explicit Raised(const char* name) : type(name) {}
  const char* what() const noexcept override { return type; }
  const char* type;  // "ValueError"
};

std::string stripped(std::string_view s);  // str.strip()
std::string lower(const std::string& s);
std::string upper(const std::string& s);
std::vector<std::string> split_at(std::string_view s, std::string_view separator);  // str.split(separator)
std::vector<std::string> words(std::string_view s);                                 // str.split()
std::string replaced(std::string s, std::string_view old, std::string_view with);
std::string without(const std::string& s, bool (*dropped)(char));  // ASCII characters
bool is_ascii_punctuation(char c);                                 // string.punctuation
bool is_ascii_letter(char c);
bool is_ascii_digit(char c);
// The text of the first code point of s, which is not empty.
std::string_view first_char(std::string_view s);
bool is_word_char(char32_t c);  // \w
bool starts_with_word(std::string_view s);
bool ends_with_word(std::string_view s);

std::optional<double> to_float(std::string_view s);   // float(s)
bool is_int(std::string_view s);                      // whether int(s) is possible
bool is_printed_int(std::string_view s);              // whether s == str(int(s))
bool is_close(double a, double b, double tolerance);  // math.isclose(a, b, abs_tol=tolerance)

}  // namespace birkhoff::eval
