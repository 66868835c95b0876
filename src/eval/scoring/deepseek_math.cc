#include "eval/scoring/deepseek_math.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/error.h"
#include "eval/scoring/math_value.h"
#include "eval/scoring/metric.h"
#include "eval/scoring/python.h"
#include "text/unicode/python_regex.h"

namespace birkhoff::eval {
namespace {

using text::PythonRegex;
using text::chat::Value;

constexpr double kTolerance = 1e-3;

bool contains(std::string_view s, std::string_view part) { return s.find(part) != s.npos; }
size_t count(std::string_view s, char c) { return static_cast<size_t>(std::count(s.begin(), s.end(), c)); }
std::string after_last(const std::string& s, std::string_view part) { return s.substr(s.rfind(part) + part.size()); }

// Every boxed answer; one that a percent sign follows keeps its brace, as there.
std::vector<std::string> boxed_answers(const std::string& text) {
  std::vector<std::string> answers;
  const std::vector<std::string> pieces = split_at(text, "boxed{");
  for (size_t k = 1; k < pieces.size(); ++k) {
    const std::string& p = pieces[k];
    int64_t open = 1;
    for (size_t i = 0; i < p.size() && open > 0; ++i) {
      open += (p[i] == '{') - (p[i] == '}');
      if (open == 0) answers.push_back(p.substr(0, i + (i + 1 < p.size() && p[i + 1] == '%')));
    }
  }
  return answers;
}

std::string program_output(const std::string& text) {
  if (!contains(text, "```output")) return "";
  const std::string tail = after_last(text, "```output");
  return stripped(tail.substr(0, tail.find("```")));
}

std::vector<std::string> raw_answers(const std::string& text) {
  constexpr std::string_view kBegin = "final answer is $", kEnd = "$. I hope";
  if (contains(text, kBegin) && contains(text, kEnd)) {
    const std::string tail = text.substr(text.find(kBegin) + kBegin.size());
    return {stripped(tail.substr(0, tail.find(kEnd)))};
  }
  if (contains(text, "boxed")) return boxed_answers(text);
  if (contains(text, "he answer is")) return {stripped(after_last(text, "he answer is"))};
  if (std::string output = program_output(text); !output.empty()) return {output};
  static const PythonRegex number(R"(-?\d*\.?\d+)");
  std::string last;
  number.find_all(replaced(text, ",", ""), [&](PythonRegex::Groups g) { return last = *g[0], true; });
  return last.empty() ? std::vector<std::string>{} : std::vector<std::string>{last};
}

std::vector<std::string> answers_of(const std::string& text, const std::string& problem) {
  static const PythonRegex text_and(R"(\\text\{\s*and\s*\})");
  const bool by_comma = contains(problem, "separated by commas");
  std::vector<std::string> out;
  for (const std::string& raw : raw_answers(text)) {
    std::string a = split_at(stripped(raw), "\n")[0];
    a.erase(0, a.find_first_not_of(':'));
    a.erase(a.find_last_not_of('.') + 1);
    a.erase(a.find_last_not_of('/') + 1);
    a = deepseek_strip_string(a);
    std::vector<std::string> parts{a};
    if (by_comma && a.find_first_of("()[]") == a.npos)
      parts = split_at(a, ",");
    else
      parts = split_at(text_and.replaced(a, [](PythonRegex::Groups, std::string& o) { o += "[SEP]"; }), "[SEP]");
    for (const std::string& p : parts) out.push_back(stripped(p));
  }
  return out;
}

std::string with_braces(const PythonRegex& regex, const std::string& command, const std::string& s) {
  return regex.replaced(s, [&](PythonRegex::Groups g, std::string& out) {
    out += command + "{";
    out += *g[1];
    out += "}";
  });
}

std::string with_argument_braces(std::string s) {
  static const PythonRegex sqrt(R"(\\sqrt(-?[0-9.a-zA-Z]+))"), sqrt_word(R"(\\sqrt\s+(\w+)$)");
  static const PythonRegex tan(R"(\\tan(-?[0-9.a-zA-Z]+))"), tan_word(R"(\\tan\s+(\w+)$)");
  s = with_braces(sqrt_word, "\\sqrt", with_braces(sqrt, "\\sqrt", s));
  return with_braces(tan_word, "\\tan", with_braces(tan, "\\tan", s));
}

std::string with_frac_braces_if_whole(const std::string& s) {
  const std::vector<std::string> parts = split_at(s, "\\frac");
  std::string out = parts[0];
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::string& p = parts[i];
    out += "\\frac";
    if (!p.empty() && p[0] == '{') {
      out += p;
      continue;
    }
    if (p.empty() || p.size() == first_char(p).size()) return s;
    const std::string a(first_char(p)), rest = p.substr(a.size()), b(first_char(rest));
    out += "{" + a + "}" + (b == "{" ? rest : "{" + b + "}" + rest.substr(b.size()));
  }
  return out;
}

std::string slash_as_frac_with_roots(const std::string& s) {
  const std::vector<std::string> parts = split_at(s, "/");
  const auto fits = [](const std::string& p) { return contains(p, "sqrt") || is_printed_int(p); };
  return parts.size() == 2 && fits(parts[0]) && fits(parts[1]) ? "\\frac{" + parts[0] + "}{" + parts[1] + "}" : s;
}

std::string without_units(std::string s) {
  static const PythonRegex text_at_end(R"(\\text\{.*?\}$)"), metres(R"(\{(c|m)?m\}(\^(2|3))?)");
  static const PythonRegex afternoon(R"(p\.m\.$)"), tons(R"((\d)\s*t$)");
  if (const std::string bare = stripped(text_at_end.without(s)); !bare.empty()) s = bare;
  for (const char* degrees : {"^{\\circ}", "^\\circ"}) s = stripped(replaced(s, degrees, ""));
  s = stripped(afternoon.without(stripped(metres.without(s))));
  return stripped(tons.replaced(s, [](PythonRegex::Groups g, std::string& out) { out += *g[1]; }));
}

std::string without_zero_decimals(const std::string& s) {
  static const PythonRegex inside(R"((\d+)\.0+([^\d]))"), at_end(R"((\d+)\.0+$)");
  const std::string out = inside.replaced(s, [](PythonRegex::Groups g, std::string& o) { (o += *g[1]) += *g[2]; });
  return at_end.replaced(out, [](PythonRegex::Groups g, std::string& o) { o += *g[1]; });
}

// A number, or a percentage of one.
std::optional<double> digits_value(const std::string& s) {
  std::string number = replaced(s, ",", "");
  if (const auto value = to_float(number)) return value;
  if (!number.ends_with('%')) return std::nullopt;
  number.pop_back();
  if (number.ends_with('\\')) number.pop_back();
  const auto value = to_float(number);
  return value ? std::optional(*value / 100) : value;
}

bool math_equal(const std::string& prediction, const std::string& reference);

bool all_equal(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), math_equal);
}

// (a, b) and [a, b), by their parts, whatever the brackets.
bool tuples_equal(const std::string& a, const std::string& b) {
  const auto bracketed = [](const std::string& s) {
    if (s.empty() || (s[0] != '(' && s[0] != '[')) return false;
    const size_t last = std::string_view(s).substr(0, s.find('\n')).find_last_of(")]");
    return last != s.npos && last >= 1 + first_char(std::string_view(s).substr(1)).size() && last > 1;
  };
  if (!bracketed(a) || !bracketed(b)) return false;
  const auto parts = [](const std::string& s) {
    size_t end = s.size() - 1;
    while ((static_cast<unsigned char>(s[end]) & 0xc0) == 0x80) --end;
    return split_at(std::string_view(s).substr(1, end - 1), ",");
  };
  return all_equal(parts(a), parts(b));
}

std::optional<std::vector<std::string>> matrix_lines(const std::string& s) {
  constexpr std::string_view kBegins[] = {"\\begin{pmatrix}", "\\begin{bmatrix}"};
  constexpr std::string_view kEnds[] = {"\\end{pmatrix}", "\\end{bmatrix}"};
  if (!s.starts_with(kBegins[0]) && !s.starts_with(kBegins[1])) return std::nullopt;
  if (!s.ends_with(kEnds[0]) && !s.ends_with(kEnds[1])) return std::nullopt;
  std::vector<std::string> lines;
  const size_t frame = kBegins[0].size() + kEnds[0].size();
  for (const std::string& l : split_at(s.substr(kBegins[0].size(), s.size() < frame ? 0 : s.size() - frame), "\\\\"))
    if (!stripped(l).empty()) lines.push_back(stripped(l));
  return lines;
}

bool matrices_equal(const std::string& a, const std::string& b) {
  const auto x = matrix_lines(a), y = matrix_lines(b);
  const auto same = [](const std::string& l, const std::string& m) {
    return all_equal(split_at(l, "&"), split_at(m, "&"));
  };
  return x && y && std::equal(x->begin(), x->end(), y->begin(), y->end(), same);
}

bool symbolic_equal(const std::string& a, const std::string& b) {
  return same_value(a, b) == SameValue::yes || close_values(a, b, kTolerance);
}

// An equation as the difference of its sides.
std::string difference(const std::string& equation) {
  const std::vector<std::string> sides = split_at(equation, "=");
  return stripped(sides[0]) + " - (" + stripped(sides[1]) + ")";
}

// x = 5 against 5.
bool named_equal(const std::string& equation, const std::string& bare) {
  if (count(equation, '=') != 1 || contains(bare, "=")) return false;
  const std::vector<std::string> sides = split_at(equation, "=");
  const std::string name = stripped(sides[0]);
  const size_t chars = static_cast<size_t>(
      std::count_if(name.begin(), name.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
  return chars <= 2 && math_equal(sides[1], bare);
}

bool math_equal(const std::string& given, const std::string& wanted) {
  if (given == wanted) return true;
  const auto x = digits_value(given), y = digits_value(wanted);
  if (x && y)
    return is_close(*y / 100, *x, kTolerance) || is_close(*y, *x, kTolerance) || is_close(*y * 100, *x, kTolerance);
  if (given.empty()) return false;
  const std::string a = stripped(given), b = stripped(wanted);
  if (tuples_equal(a, b) || matrices_equal(a, b)) return true;
  if (count(a, '=') == 1 && count(b, '=') == 1) {
    const std::string p = difference(a), r = difference(b);
    if (symbolic_equal(p, r) || symbolic_equal("-(" + p + ")", r)) return true;
  } else if (named_equal(a, b) || named_equal(b, a)) {
    return true;
  }
  return symbolic_equal(a, b);
}

// Every one of either list equals one of the other.
bool lists_equal(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  const auto found = [](const std::vector<std::string>& in) {
    return [&in](const std::string& one) {
      return std::any_of(in.begin(), in.end(),
                         [&](const std::string& other) { return deepseek_math_equal(one, other); });
    };
  };
  const auto found_reversed = [&a](const std::string& one) {
    return std::any_of(a.begin(), a.end(), [&](const std::string& other) { return deepseek_math_equal(other, one); });
  };
  return std::all_of(a.begin(), a.end(), found(b)) && std::all_of(b.begin(), b.end(), found_reversed);
}

std::vector<std::string> without_repetitions(const std::vector<std::string>& list) {
  std::vector<std::string> out;
  for (const std::string& one : list)
    if (std::find(out.begin(), out.end(), one) == out.end()) out.push_back(one);
  return out;
}

std::string reference_field(const Value& references, const char* field) {
  const Value v = text::chat::get(references, field);
  if (!v.is(text::chat::Kind::string))
    throw Error("eval", std::string("references of \"deepseek_math\" without the text \"") + field + "\"");
  return v.bytes();
}

class DeepseekMath final : public Metric {
 public:
  std::vector<std::string> names() const override { return {"exact_match"}; }
  void judge(const Value& references, const RunProgram&, Judgement& j) const override {
    const std::vector<std::string> wanted =
        without_repetitions(references.is(text::chat::Kind::dict) ? answers_of(reference_field(references, "solution"),
                                                                               reference_field(references, "problem"))
                                                                  : some_texts(references));
    std::vector<std::string> given;
    if (!j.extracted.empty()) given = without_repetitions(split_at(j.extracted, "\n"));
    // What was boxed on the way to the answers stands before them.
    if (!wanted.empty() && given.size() > wanted.size())
      given.erase(given.begin(), given.end() - static_cast<int64_t>(wanted.size()));
    j.metrics.emplace_back("exact_match", lists_equal(given, wanted) ? 1. : 0.);
  }
};

}  // namespace

std::string deepseek_strip_string(const std::string& given) {
  std::string s = replaced(stripped(given), "\n", "");
  s.erase(s.find_last_not_of('.') + 1);
  s = replaced(s, "\\!", "");
  if (s.starts_with("\\text{") && s.ends_with('}')) s = s.substr(6, s.size() - 7);
  static constexpr std::pair<const char*, const char*> kFirst[] = {
      {"tfrac", "frac"}, {"dfrac", "frac"}, {"cfrac", "frac"}, {"\\left", ""}, {"\\right", ""}};
  for (const auto& [old, with] : kFirst) s = replaced(s, old, with);
  s = without_units(s);
  static constexpr std::pair<const char*, const char*> kThen[] = {
      {"\\$", ""},   {"$", ""},     {"x\\in", ""},  {"\\%", "%"},
      {" .", " 0."}, {"{.", "{0."}, {"\\cdot", ""}, {"infinity", "\\infty"}};
  for (const auto& [old, with] : kThen) s = replaced(s, old, with);
  if (!contains(s, "\\infty")) s = replaced(s, "inf", "\\infty");
  static constexpr std::pair<const char*, const char*> kLast[] = {
      {"+\\inity", "\\infty"}, {"\\mathbf", ""}, {"\\mathrm", ""}};
  for (const auto& [old, with] : kLast) s = replaced(s, old, with);
  static const PythonRegex mbox(R"(\\mbox\{.*?\})");
  s = mbox.without(s);
  if (contains(s, "j") && !contains(s, "i")) s = replaced(s, "j", "i");
  s = without_zero_decimals(s);
  if (s.empty()) return s;
  if (s[0] == '.') s = "0" + s;
  s = replaced(with_argument_braces(s), " ", "");
  s = slash_as_frac_with_roots(with_frac_braces_if_whole(s));
  s.erase(s.find_last_not_of("\\,.") + 1);
  return s;
}

std::string deepseek_math_answers(const std::string& text, const Value& references) {
  const std::string problem =
      references.is(text::chat::Kind::dict) ? reference_field(references, "problem") : std::string();
  std::string out;
  for (const std::string& a : answers_of(text.substr(0, text.find("Problem:")), problem)) out += a + "\n";
  if (!out.empty()) out.pop_back();
  return out;
}

bool deepseek_math_equal(const std::string& prediction, const std::string& reference) {
  if (contains(prediction, "\\cup") && contains(reference, "\\cup"))
    return lists_equal(split_at(prediction, "\\cup"), split_at(reference, "\\cup"));
  const auto x = to_float(replaced(prediction, ",", "")), y = to_float(replaced(reference, ",", ""));
  return (x && y && std::abs(*x - *y) < kTolerance) || math_equal(prediction, reference);
}

std::unique_ptr<Metric> deepseek_math_metric() { return std::make_unique<DeepseekMath>(); }

}  // namespace birkhoff::eval
