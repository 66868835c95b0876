#include "eval/scoring/hendrycks_math.h"

#include "core/error.h"
#include "eval/scoring/boxed.h"
#include "eval/scoring/metric.h"
#include "eval/scoring/python.h"
#include "text/jinja/characters.h"

namespace birkhoff::eval {
namespace {

using text::chat::Value;

std::string without_right_units(const std::string& s) {
  const std::vector<std::string> parts = split_at(s, "\\text{ ");
  if (parts.size() > 2) throw Raised("AssertionError");
  return parts[0];
}

std::string with_sqrt_braces(const std::string& s) {
  const std::vector<std::string> parts = split_at(s, "\\sqrt");
  std::string out = parts[0];
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::string& p = parts[i];
    if (p.empty()) throw Raised("IndexError");
    const std::string_view a = first_char(p);
    out += "\\sqrt";
    out += p[0] == '{' ? p : "{" + std::string(a) + "}" + p.substr(a.size());
  }
  return out;
}

std::string with_frac_braces(const std::string& s) {
  const std::vector<std::string> parts = split_at(s, "\\frac");
  std::string out = parts[0];
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::string& p = parts[i];
    if (p.empty()) throw Raised("IndexError");
    out += "\\frac";
    if (p[0] == '{') {
      out += p;
      continue;
    }
    const std::string a(first_char(p)), rest = p.substr(a.size());
    if (rest.empty()) return s;
    const std::string b(first_char(rest));
    out += "{" + a + "}";
    out += b == "{" ? rest : "{" + b + "}" + rest.substr(b.size());
  }
  return out;
}

std::string slash_as_frac(const std::string& s) {
  const std::vector<std::string> parts = split_at(s, "/");
  if (parts.size() != 2) return s;
  if (!is_int(parts[0]) || !is_int(parts[1])) throw Raised("ValueError");
  return is_printed_int(parts[0]) && is_printed_int(parts[1]) ? "\\frac{" + parts[0] + "}{" + parts[1] + "}" : s;
}

std::string after_short_name(const std::string& s) {
  const std::vector<std::string> parts = split_at(s, "=");
  return parts.size() == 2 && text::chat::utf8_count(parts[0]) <= 2 ? parts[1] : s;
}

class HendrycksMath final : public Metric {
 public:
  std::vector<std::string> names() const override { return {"exact_match"}; }
  void judge(const Value& references, const RunProgram&, Judgement& j) const override {
    const std::string& extracted = j.extracted;
    const size_t first = extracted.find('$'), last = extracted.rfind('$');
    const std::string answer = first == last ? extracted : extracted.substr(first + 1, last - first - 1);
    j.metrics.emplace_back("exact_match", hendrycks_equal(answer, last_boxed(one_text(references))) ? 1. : 0.);
  }
};

}  // namespace

std::string last_boxed(const std::string& solution) {
  constexpr std::string_view kSpaced = "\\boxed ", kBraced = "\\boxed{";
  if (const size_t at = solution.rfind(kSpaced); at != solution.npos) {
    const size_t begin = at + kSpaced.size();
    return solution.substr(begin, solution.find('$', begin) - begin);
  }
  size_t begin = solution.rfind("\\boxed");
  if (begin == solution.npos) begin = solution.rfind("\\fbox");
  int64_t open = 0;
  for (size_t i = begin; i < solution.size(); ++i) {
    open += (solution[i] == '{') - (solution[i] == '}');
    if (solution[i] != '}' || open != 0) continue;
    if (solution.compare(begin, kBraced.size(), kBraced) != 0) break;
    return solution.substr(begin + kBraced.size(), i - begin - kBraced.size());
  }
  throw Error("eval", "the solution \"" + shortened(solution) + "\" has no answer in \\boxed{}");
}

std::string hendrycks_strip_string(std::string s) {
  static constexpr std::pair<const char*, const char*> kFirst[] = {
      {"\n", ""},     {"\\!", ""},     {"\\\\", "\\"},    {"tfrac", "frac"}, {"dfrac", "frac"},
      {"\\left", ""}, {"\\right", ""}, {"^{\\circ}", ""}, {"^\\circ", ""},   {"\\$", ""}};
  for (const auto& [old, with] : kFirst) s = replaced(s, old, with);
  s = without_right_units(s);
  s = replaced(s, "\\%", "");
  s = replaced(s, " .", " 0.");
  s = replaced(s, "{.", "{0.");
  if (s.empty()) return s;
  if (s[0] == '.') s = "0" + s;
  s = with_sqrt_braces(after_short_name(s));
  s = with_frac_braces(replaced(s, " ", ""));
  if (s == "0.5") s = "\\frac{1}{2}";
  return slash_as_frac(s);
}

bool hendrycks_equal(const std::string& a, const std::string& b) {
  try {
    return hendrycks_strip_string(a) == hendrycks_strip_string(b);
  } catch (const Raised&) {
    return a == b;
  }
}

std::unique_ptr<Metric> hendrycks_math_metric() { return std::make_unique<HendrycksMath>(); }

}  // namespace birkhoff::eval
