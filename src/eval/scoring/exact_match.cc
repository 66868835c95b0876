// exact_match of the harness, which compares in arrays of numpy.
#include <algorithm>

#include "core/error.h"
#include "eval/scoring/metric.h"
#include "eval/scoring/python.h"
#include "eval/scoring/rule_fields.h"
#include "text/jinja/characters.h"
#include "text/unicode/python_regex.h"

namespace birkhoff::eval {
namespace {

using text::chat::Value;

// numpy's arrays of strings are as wide as the widest element and drop zeros at the end of each.
size_t array_width(const std::vector<std::string>& texts) {
  size_t width = 0;
  for (const std::string& t : texts) width = std::max(width, text::chat::utf8_count(t));
  return width;
}

void drop_end_zeros(std::string& s) { s.erase(s.find_last_not_of('\0') + 1); }

// np.char.lower keeps the width of the array: what grows beyond it is cut.
std::string array_lower(const std::string& s, size_t width) {
  std::string out = lower(s);
  size_t end = 0;
  for (size_t n = 0; n < width && end < out.size(); ++n)
    end += text::chat::utf8_length(static_cast<unsigned char>(out[end]));
  return out.substr(0, end);
}

class ExactMatch final : public Metric {
 public:
  ExactMatch(const nlohmann::json& rules, const std::string& where) {
    const RuleFields fields(rules, where, {"name", "delete", "ignore_case", "ignore_punctuation", "ignore_numbers"});
    for (const std::string& pattern : fields.texts("delete")) deleted_.emplace_back(pattern);
    ignore_case_ = fields.flag("ignore_case");
    ignore_punctuation_ = fields.flag("ignore_punctuation");
    ignore_numbers_ = fields.flag("ignore_numbers");
  }

  std::vector<std::string> names() const override { return {"exact_match"}; }

  void judge(const Value& references, const RunProgram&, Judgement& j) const override {
    const std::string prediction = compared({j.extracted})[0];
    const std::vector<std::string> right = compared(some_texts(references));
    const bool found = std::find(right.begin(), right.end(), prediction) != right.end();
    j.metrics.emplace_back("exact_match", found ? 1. : 0.);
  }

 private:
  std::vector<std::string> compared(std::vector<std::string> texts) const {
    for (std::string& t : texts) drop_end_zeros(t);
    for (const text::PythonRegex& r : deleted_)
      for (std::string& t : texts) drop_end_zeros(t = r.without(t));
    const size_t width = array_width(texts);
    for (std::string& t : texts) {
      if (ignore_case_) t = array_lower(t, width);
      if (ignore_punctuation_) t = without(t, is_ascii_punctuation);
      if (ignore_numbers_) t = without(t, is_ascii_digit);
      drop_end_zeros(t);
    }
    return texts;
  }

  std::vector<text::PythonRegex> deleted_;
  bool ignore_case_ = false, ignore_punctuation_ = false, ignore_numbers_ = false;
};

}  // namespace

std::unique_ptr<Metric> exact_match_metric(const nlohmann::json& rules, const std::string& where) {
  return std::make_unique<ExactMatch>(rules, where);
}

}  // namespace birkhoff::eval
