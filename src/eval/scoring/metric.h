// One metric of a task: what an extracted answer is worth beside the references.
#pragma once
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "eval/scoring/scoring.h"

namespace birkhoff::eval {

class Metric {
 public:
  virtual ~Metric() = default;
  virtual std::vector<std::string> names() const = 0;
  virtual bool runs_programs() const { return false; }
  // Of j.extracted: appends to j.metrics a value for each of names(). Throws Error naming what is wrong with the
  // references.
  virtual void judge(const text::chat::Value& references, const RunProgram& run, Judgement& j) const = 0;
};

// References that are a text, or a list of texts. Throws Error.
const std::string& one_text(const text::chat::Value& references);
std::vector<std::string> some_texts(const text::chat::Value& references);

// rules: the object of the task file. where: what messages name.
std::unique_ptr<Metric> exact_match_metric(const nlohmann::json& rules, const std::string& where);
std::unique_ptr<Metric> drop_metric();
std::unique_ptr<Metric> hendrycks_math_metric();
std::unique_ptr<Metric> minerva_math_metric();
std::unique_ptr<Metric> program_metric(const nlohmann::json& rules, const std::string& where);
std::unique_ptr<Metric> deepseek_math_metric();

}  // namespace birkhoff::eval
