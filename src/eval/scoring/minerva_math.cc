#include "eval/scoring/minerva_math.h"

#include <algorithm>
#include <iterator>

#include "eval/scoring/boxed.h"
#include "eval/scoring/math_value.h"
#include "eval/scoring/metric.h"
#include "eval/scoring/python.h"
#include "text/jinja/characters.h"

namespace birkhoff::eval {
namespace {

using text::chat::utf8_next;
using text::chat::Value;

constexpr std::string_view kBegin = "Final Answer: The final answer is", kEnd = " I hope it is correct";

constexpr std::pair<const char*, const char*> kSubstitutions[] = {
    {"an ", ""}, {"a ", ""},       {".$", "$"},           {"\\$", ""},          {"\\ ", ""},
    {" ", ""},   {"mbox", "text"}, {",\\text{and}", ","}, {"\\text{and}", ","}, {"\\text{m}", "\\text{}"}};

constexpr std::string_view kUnits[] = {
    "square", "ways",     "integers",        "dollars",  "mph",   "inches",  "ft", "hours", "km",     "units",  "sue",
    "points", "feet",     "minutes",         "digits",   "cents", "degrees", "cm", "gm",    "pounds", "meters", "meals",
    "edges",  "students", "childrentickets", "multiples"};

// In the order they are removed, units among them: what one leaves behind the next may find.
constexpr std::string_view kRemoved[] = {"square",       "ways",
                                         "integers",     "dollars",
                                         "mph",          "inches",
                                         "ft",           "hours",
                                         "km",           "units",
                                         "\\ldots",      "sue",
                                         "points",       "feet",
                                         "minutes",      "digits",
                                         "cents",        "degrees",
                                         "cm",           "gm",
                                         "pounds",       "meters",
                                         "meals",        "edges",
                                         "students",     "childrentickets",
                                         "multiples",    "\\text{s}",
                                         "\\text{.}",    "\\text{\ns}",
                                         "\\text{}^2",   "\\text{}^3",
                                         "\\text{\n}",   "\\text{}",
                                         "\\mathrm{th}", "^\\circ",
                                         "^{\\circ}",    "\\;",
                                         ",\\!",         "{,}",
                                         "\"",           "\\dots"};

bool is_unit(std::string_view word) {
  return std::find(std::begin(kUnits), std::end(kUnits), word) != std::end(kUnits);
}

// Units that are whole words and no commands.
std::string without_unit_words(const std::string& s) {
  std::string out;
  for (size_t i = 0; i < s.size();) {
    const size_t begin = i;
    for (size_t next = i; next < s.size() && is_word_char(utf8_next(s, next));) i = next;
    const std::string_view word = std::string_view(s).substr(begin, i - begin);
    if (!is_unit(word) || (begin > 0 && s[begin - 1] == '\\')) out += word;
    if (i == begin) {
      utf8_next(s, i);
      out.append(s, begin, i - begin);
    }
  }
  return out;
}

// Every `unit` outside of \commands.
std::string without_glued_unit(const std::string& s, std::string_view unit) {
  std::string out;
  for (size_t i = 0; i < s.size();) {
    size_t command = s.find('\\', i);
    while (command != s.npos && (command + 1 == s.size() || !is_ascii_letter(s[command + 1])))
      command = s.find('\\', command + 1);
    out += replaced(s.substr(i, command - i), unit, "");
    if (command == s.npos) break;
    i = command + 1;
    while (i < s.size() && is_ascii_letter(s[i])) ++i;
    out.append(s, command, i - command);
  }
  return out;
}

// Of every line with two $ what stands between them, in $.
std::string math_of_lines(const std::string& s) {
  std::string out;
  for (const std::string& line : split_at(s, "\n")) {
    const size_t first = line.find('$'), second = first == line.npos ? first : line.find('$', first + 1);
    out += second == line.npos ? line : line.substr(first, second - first + 1);
    out += '\n';
  }
  out.pop_back();
  return out;
}

// Takes away `open` and the brace that closes it: the next one of the line, or its last.
std::string unwrapped(const std::string& s, std::string_view open, bool to_last) {
  std::string out;
  size_t from = 0;
  for (size_t at = s.find(open); at != s.npos; at = s.find(open, from)) {
    const size_t begin = at + open.size(), line_end = std::min(s.find('\n', begin), s.size());
    const std::string_view rest = std::string_view(s).substr(begin, line_end - begin);
    const size_t inside = to_last ? rest.rfind('}') : rest.find('}');
    if (inside == rest.npos) {  // nor is there a brace for others on this line
      out.append(s, from, line_end - from);
      from = line_end;
      continue;
    }
    out.append(s, from, at - from).append(s, begin, inside);
    from = begin + inside + 1;
  }
  return out.append(s, from);
}

// \frac12 -> \frac{1}{2}
std::string frac_braces(const std::string& s) {
  std::string out;
  size_t from = 0;
  for (size_t at = s.find("frac"); at != s.npos; at = s.find("frac", std::max(from, at + 1))) {
    size_t i = at + 4;
    if (i >= s.size() || s[i] == '{') continue;
    const size_t a = i;
    utf8_next(s, i);
    const size_t b = i;
    if (b >= s.size() || s[b] == '\n') continue;
    utf8_next(s, i);
    out.append(s, from, a - from) += "{" + s.substr(a, b - a) + "}{" + s.substr(b, i - b) + "}";
    from = i;
  }
  return out.append(s, from);
}

// \sqrt[3]8 -> \sqrt[3]{8}
std::string root_braces(const std::string& s) {
  std::string out;
  size_t from = 0, close = 0;
  for (size_t at = s.find("sqrt["); at != s.npos; at = s.find("sqrt[", std::max(from, at + 1))) {
    if (close < at + 5) close = s.find(']', at + 5);
    if (close == s.npos) break;
    const std::string_view after = std::string_view(s).substr(close + 1);
    if (!starts_with_word(after)) continue;
    const std::string a(first_char(after));
    out.append(s, from, close + 1 - from) += "{" + a + "}";
    from = close + 1 + a.size();
  }
  return out.append(s, from);
}

// \sqrt3 -> \sqrt{3}
std::string sqrt_braces(const std::string& s) {
  std::string out;
  size_t from = 0;
  for (size_t at = s.find("sqrt"); at != s.npos; at = s.find("sqrt", std::max(from, at + 1))) {
    const size_t a = at + 4;
    if (a >= s.size() || s[a] == '[' || s[a] == '{') continue;
    const std::string one(first_char(std::string_view(s).substr(a)));
    out.append(s, from, a - from) += "{" + one + "}";
    from = a + one.size();
  }
  return out.append(s, from);
}

// -?\d{1,3}(,\d{3})+ as a whole.
bool has_thousands_commas(const std::string& s) {
  const std::vector<std::string> groups = split_at(s.substr(!s.empty() && s[0] == '-'), ",");
  if (groups.size() < 2) return false;
  for (size_t g = 0; g < groups.size(); ++g) {
    size_t digits = 0;
    for (size_t i = 0; i < groups[g].size(); ++digits)
      if (!text::chat::is_digit(utf8_next(groups[g], i))) return false;
    if (digits > 3 || digits < (g == 0 ? 1u : 3u)) return false;
  }
  return true;
}

class MinervaMath final : public Metric {
 public:
  std::vector<std::string> names() const override { return {"exact_match"}; }
  void judge(const Value& references, const RunProgram&, Judgement& j) const override {
    const std::string gold = minerva_normalize(last_boxed(one_text(references)));
    const std::string answer = minerva_normalize(minerva_answer(j.extracted));
    const bool equal = !answer.empty() && answer == gold;
    const SameValue same = equal ? SameValue::yes : same_value(answer, gold);
    j.text_only |= same == SameValue::unknown;
    j.metrics.emplace_back("exact_match", same == SameValue::yes ? 1. : 0.);
  }
};

}  // namespace

std::string minerva_answer(const std::string& answer) {
  const std::string s = answer + "I hope it is correct.";
  for (size_t at = s.find(kBegin); at != s.npos;) {
    const size_t begin = at + kBegin.size(), line_end = std::min(s.find('\n', begin), s.size());
    // One character stands before the end and one behind it.
    size_t inner = begin;
    if (inner < line_end) utf8_next(s, inner);
    const size_t end = std::string_view(s).substr(0, line_end).find(kEnd, inner);
    if (inner > begin && end != s.npos && end + kEnd.size() < line_end) {
      size_t last = end - 1;
      while ((static_cast<unsigned char>(s[last]) & 0xc0) == 0x80) --last;
      return stripped(s.substr(begin, last - begin));
    }
    at = s.find(kBegin, line_end);  // what no answer of this line ends, ends none that begins later in it
  }
  return "[invalidanswer]";
}

std::string minerva_normalize(std::string s) {
  s = without_unit_words(s.substr(s.rfind('=') + 1));
  for (const auto& [old, with] : kSubstitutions) s = replaced(s, old, with);
  for (const std::string_view removed : kRemoved)
    s = is_unit(removed) ? without_glued_unit(s, removed) : replaced(s, removed, "");
  s = math_of_lines(s);
  for (const char* open : {"\\text{", "\\textbf{", "\\overline{"}) s = unwrapped(s, open, false);
  s = unwrapped(s, "\\boxed{", true);
  s = sqrt_braces(root_braces(frac_braces(s)));
  s = replaced(s, "$", "");
  return has_thousands_commas(s) ? replaced(s, ",", "") : s;
}

std::unique_ptr<Metric> minerva_math_metric() { return std::make_unique<MinervaMath>(); }

}  // namespace birkhoff::eval
