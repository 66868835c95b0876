// Two kinds of failure, kept apart on purpose.
//
// A broken contract is a programmer's mistake: BK_CHECK throws ContractViolation with file, line and both values; it is
// always on. The outside world (file, config, command line, disk) fails with Error, which says where, what and what to
// do; it is caught in main() only.
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace birkhoff {

// Process exit codes, documented in README.md.
enum class ExitCode { done = 0, failed = 1, usage = 2, input = 3, interrupted = 130, closed_pipe = 141 };

// What a message says of a long value: a "quoted" one ends after 100 bytes, the whole after 4000.
std::string shortened(std::string_view text);

class Error : public std::runtime_error {
 public:
  // where: the part that speaks ("config", "checkpoint"), what: the complaint with both values, hint: a way out (may be
  // ""). Both are shortened.
  Error(std::string where, std::string what, std::string hint = "", ExitCode code = ExitCode::input);
  const std::string& where() const { return where_; }
  const std::string& hint() const { return hint_; }
  ExitCode code() const { return code_; }
  std::string said() const { return std::string(what()).substr(where_.size() + 3); }  // without "[where] "

 private:
  std::string where_, hint_;
  ExitCode code_;
};

// f(); what goes wrong in it names the file: "[where] path: what".
template <class F>
auto about_file(const std::string& path, F&& f) {
  try {
    return f();
  } catch (const Error& e) {
    throw Error(e.where(), path + ": " + e.said(), e.hint(), e.code());
  }
}

class ContractViolation : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

namespace detail {
[[noreturn]] void contract_failed(const char* file, int line, const std::string& text);
template <class A, class B>
[[noreturn]] void comparison_failed(const char* file, int line, const char* expr, const A& a, const B& b) {
  std::ostringstream s;
  s << expr << " (" << a << " vs " << b << ")";
  contract_failed(file, line, s.str());
}
}  // namespace detail

#define BK_CHECK(cond)                                                           \
  do {                                                                           \
    if (!(cond)) ::birkhoff::detail::contract_failed(__FILE__, __LINE__, #cond); \
  } while (0)
#define BK_CHECK_OP(a, op, b)                                                                                      \
  do {                                                                                                             \
    const auto& bk_a = (a);                                                                                        \
    const auto& bk_b = (b);                                                                                        \
    if (!(bk_a op bk_b)) ::birkhoff::detail::comparison_failed(__FILE__, __LINE__, #a " " #op " " #b, bk_a, bk_b); \
  } while (0)
#define BK_CHECK_EQ(a, b) BK_CHECK_OP(a, ==, b)
#define BK_CHECK_LE(a, b) BK_CHECK_OP(a, <=, b)
#define BK_CHECK_LT(a, b) BK_CHECK_OP(a, <, b)

}  // namespace birkhoff
