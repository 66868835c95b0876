#include "text/unicode/python_regex.h"

#include <vector>

#include "core/error.h"
#include "text/unicode/onig_regex.h"
#include "text/unicode/utf8.h"

namespace birkhoff::text {
namespace {

// str.isalnum and the underscore: combining marks are no part of words in Python.
constexpr char kWord[] = "\\p{L}\\p{N}_", kSpace[] = "\\s\\x1c-\\x1f", kDecimal[] = "\\p{Nd}";
constexpr char kBoundary[] = "(?:(?<=[\\p{L}\\p{N}_])(?![\\p{L}\\p{N}_])|(?<![\\p{L}\\p{N}_])(?=[\\p{L}\\p{N}_]))";
constexpr char kNoBoundary[] = "(?:(?<=[\\p{L}\\p{N}_])(?=[\\p{L}\\p{N}_])|(?<![\\p{L}\\p{N}_])(?![\\p{L}\\p{N}_]))";

// Rewrites a pattern where both engines read the same characters differently.
class PythonPattern {
 public:
  explicit PythonPattern(const std::string& pattern) : p_(pattern) {}

  std::string translated() {
    while (i_ < p_.size()) {
      const char c = p_[i_++];
      if (c == '\\')
        escape();
      else if (!class_ && c == '[')
        open_class();
      else if (class_ && c == ']')
        out_ += c, class_ = false;
      else if (class_ && (c == '[' || c == '&'))
        (out_ += '\\') += c;
      else
        out_ += c;
    }
    return std::move(out_);
  }

 private:
  void open_class() {
    out_ += '[';
    class_ = true;
    if (i_ < p_.size() && p_[i_] == '^') out_ += p_[i_++];
    if (i_ < p_.size() && p_[i_] == ']') {
      out_ += "\\]";
      ++i_;
    }
  }

  void set(const char* members, bool negated) {
    const bool alone = !class_ || negated;
    out_ += (alone ? negated ? "[^" : "[" : "");
    out_ += members;
    if (alone) out_ += ']';
  }

  void escape() {
    if (i_ == p_.size()) return static_cast<void>(out_ += '\\');
    const char c = p_[i_++];
    switch (c) {
      case 'w':
      case 'W':
        return set(kWord, c == 'W');
      case 's':
      case 'S':
        return set(kSpace, c == 'S');
      case 'd':
      case 'D':
        return set(kDecimal, c == 'D');
      case 'b':
        return static_cast<void>(out_ += class_ ? "\\x08" : kBoundary);
      case 'B':
        return static_cast<void>(out_ += kNoBoundary);
      case 'x':
        return code_point(2);
      case 'u':
        return code_point(4);
      case 'U':
        return code_point(8);
      default:
        break;
    }
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (letter && std::string_view("AZafnrtv").find(c) == std::string_view::npos)
      throw Error("regex", "regular expression " + p_ + ": \\" + c + " has no meaning in Python");
    (out_ += '\\') += c;
  }

  void code_point(size_t digits) {
    const std::string hex = p_.substr(i_, digits);
    if (hex.size() < digits || hex.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos)
      throw Error("regex", "regular expression " + p_ + ": \\x, \\u and \\U take 2, 4 and 8 hexadecimal digits");
    i_ += digits;
    const auto c = static_cast<char32_t>(std::stoul(hex, nullptr, 16));
    if (c < 0x80)
      out_ += "\\x" + hex.substr(digits - 2);
    else
      append_char(c, out_);
  }

  const std::string& p_;
  std::string out_;
  size_t i_ = 0;
  bool class_ = false;
};

}  // namespace

PythonRegex::PythonRegex(const std::string& pattern)
    : regex_(std::make_unique<OnigRegex>(PythonPattern(pattern).translated(), OnigRegex::Syntax::python, pattern,
                                         "regex")) {}
PythonRegex::~PythonRegex() = default;
PythonRegex::PythonRegex(PythonRegex&&) noexcept = default;
PythonRegex& PythonRegex::operator=(PythonRegex&&) noexcept = default;

void PythonRegex::find_all(std::string_view text, const std::function<bool(Groups)>& seen) const {
  const Region region = make_region();
  std::vector<std::optional<std::string_view>> groups;
  bool was_empty = false;  // then the next match takes a character or stands further on
  for (size_t from = 0; from <= text.size();) {
    if (!regex_->search(text, from, region.get())) return;
    if (was_empty && static_cast<size_t>(region->end[0]) == from) {
      const bool there = regex_->search(text, from, region.get(), true);
      if (!there || static_cast<size_t>(region->beg[0]) != from) {
        if (from == text.size()) return;
        const char* p = text.data() + from;
        next_char(p);
        from = static_cast<size_t>(p - text.data());
        was_empty = false;
        continue;
      }
    }
    groups.clear();
    for (int i = 0; i < region->num_regs; ++i) {
      const int b = region->beg[i], e = region->end[i];
      groups.push_back(b < 0 ? std::nullopt
                             : std::optional(text.substr(static_cast<size_t>(b), static_cast<size_t>(e - b))));
    }
    if (!seen(groups)) return;
    was_empty = region->beg[0] == region->end[0];
    from = static_cast<size_t>(region->end[0]);
  }
}

std::string PythonRegex::replaced(std::string_view text,
                                  const std::function<void(Groups, std::string& out)>& with) const {
  std::string out;
  const char* kept = text.data();
  find_all(text, [&](Groups g) {
    out.append(kept, g[0]->data());
    with(g, out);
    kept = g[0]->data() + g[0]->size();
    return true;
  });
  return out.append(kept, text.data() + text.size());
}

std::string PythonRegex::without(std::string_view text) const {
  return replaced(text, [](Groups, std::string&) {});
}

}  // namespace birkhoff::text
