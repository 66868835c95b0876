#include "eval/scoring/program.h"

#include "core/error.h"
#include "eval/scoring/metric.h"
#include "eval/scoring/rule_fields.h"

namespace birkhoff::eval {
namespace {

using text::chat::Value;

std::string program_test(const Value& references) {
  const Value test = references.is(text::chat::Kind::dict) ? text::chat::get(references, "test") : references;
  if (!test.is(text::chat::Kind::string))
    throw Error("eval", "the references of a program must be its test, or {\"prompt\", \"test\"}");
  return test.bytes();
}

class Program final : public Metric {
 public:
  explicit Program(std::string name) : name_(std::move(name)) {}
  std::vector<std::string> names() const override { return {name_}; }
  bool runs_programs() const override { return true; }
  void judge(const Value& references, const RunProgram& run, Judgement& j) const override {
    if (!run) throw Error("eval", name_ + " runs programs that a model wrote, which is off", "--allow-code runs them");
    j.metrics.emplace_back(name_, run(j.extracted + "\n" + program_test(references)) ? 1. : 0.);
  }

 private:
  std::string name_;
};

}  // namespace

std::string program_prompt(const Value& references) {
  const Value prompt = text::chat::get(references, "prompt");
  if (!prompt.is(text::chat::Kind::string))
    throw Error("eval", "the references of a program that continues a prompt must be {\"prompt\", \"test\"}");
  return prompt.bytes();
}

double pass_at_k(int64_t n, int64_t passed, int64_t k) {
  BK_CHECK_LE(k, n);
  if (n - passed < k) return 1;
  double none = 1;
  for (int64_t i = n - passed + 1; i <= n; ++i) none *= 1 - static_cast<double>(k) / static_cast<double>(i);
  return 1 - none;
}

std::unique_ptr<Metric> program_metric(const nlohmann::json& rules, const std::string& where) {
  const RuleFields fields(rules, where, {"name"});
  return std::make_unique<Program>(fields.text("name"));
}

}  // namespace birkhoff::eval
