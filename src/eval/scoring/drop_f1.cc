#include "eval/scoring/drop_f1.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "core/error.h"
#include "eval/scoring/metric.h"
#include "eval/scoring/python.h"
#include "text/jinja/characters.h"
#include "text/jinja/python_print.h"

namespace birkhoff::eval {
namespace {

using text::chat::Value;

std::string without_articles(const std::string& s) {
  std::string out;
  for (size_t i = 0; i < s.size();) {
    const size_t begin = i;
    size_t next = i;
    while (next < s.size() && is_word_char(text::chat::utf8_next(s, next))) i = next;
    const std::string word = s.substr(begin, i - begin);
    out += word == "a" || word == "an" || word == "the" ? " " : word;
    if (i == begin) {
      text::chat::utf8_next(s, i);
      out.append(s, begin, i - begin);
    }
  }
  return out;
}

std::string joined(const std::vector<std::string>& parts) {
  std::string out;
  for (const std::string& p : parts) out += (out.empty() ? "" : " ") + p;
  return out;
}

std::string normalized_piece(const std::string& piece) {
  std::string s = lower(piece);
  if (!to_float(s)) s = without(s, is_ascii_punctuation);
  if (const auto number = to_float(s)) s = text::chat::float_repr(*number);
  return joined(words(without_articles(s)));
}

std::set<std::string> bag_of(const std::string& normalized) {
  const std::vector<std::string> tokens = words(normalized);
  return {tokens.begin(), tokens.end()};
}

// 0 when gold has numbers and none of them is predicted.
double bag_f1(const std::set<std::string>& gold, const std::set<std::string>& predicted) {
  bool numbers = false, shared_number = false;
  double shared = 0;
  for (const std::string& token : gold) {
    const bool found = predicted.count(token) > 0, number = to_float(token).has_value();
    shared += found;
    numbers |= number;
    shared_number |= number && found;
  }
  if (numbers && !shared_number) return 0;
  const double precision = predicted.empty() ? 1 : shared / static_cast<double>(predicted.size());
  const double recall = gold.empty() ? 1 : shared / static_cast<double>(gold.size());
  return precision == 0 && recall == 0 ? 0 : 2 * precision * recall / (precision + recall);
}

class Drop final : public Metric {
 public:
  std::vector<std::string> names() const override { return {"em", "f1"}; }

  void judge(const Value& references, const RunProgram&, Judgement& j) const override {
    if (!references.is_sequence()) bad();
    double em = 0, f1 = 0;
    for (const Value& answer : references.items()) {
      const std::vector<std::string> spans = some_texts(answer);
      if (spans.empty()) bad();
      if (stripped(spans[0]).empty()) continue;
      const auto [e, f] = drop_scores(j.extracted, spans);
      em = std::max(em, e);
      f1 = std::max(f1, f);
    }
    j.metrics.emplace_back("em", em);
    j.metrics.emplace_back("f1", f1);
  }

 private:
  [[noreturn]] static void bad() {
    throw Error("eval", "the references of \"drop\" must be a list of answers, each a list of one span or more");
  }
};

}  // namespace

std::string drop_normalize(const std::string& span) {
  std::vector<std::string> pieces;
  for (const std::string& by_space : split_at(span, " "))
    for (const std::string& piece : split_at(by_space, "-"))
      if (std::string p = normalized_piece(piece); !p.empty()) pieces.push_back(std::move(p));
  return joined(pieces);
}

std::pair<double, double> drop_scores(const std::string& prediction, const std::vector<std::string>& answer) {
  const std::string predicted = drop_normalize(prediction);
  const std::set<std::string> predicted_bag = bag_of(predicted);
  double best = 0;  // the one prediction is assigned to the span that it fits best
  for (const std::string& span : answer) best = std::max(best, bag_f1(bag_of(drop_normalize(span)), predicted_bag));
  const bool exact = answer.size() == 1 && drop_normalize(answer[0]) == predicted;
  const double mean = best / static_cast<double>(answer.size());
  return {exact ? 1. : 0., std::nearbyint(mean * 100) / 100};
}

std::unique_ptr<Metric> drop_metric() { return std::make_unique<Drop>(); }

}  // namespace birkhoff::eval
