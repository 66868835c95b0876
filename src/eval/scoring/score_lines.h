// Scoring without a model: JSON lines that hold predictions, and the same lines with what they are worth.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "eval/scoring/scoring.h"

namespace birkhoff::eval {

// {"task", "references", "prediction"} -> the same with "filters" {name: {"extracted", metric: value}}; other fields
// are kept. {"function", "input"} -> the same with "output", or "raises" where the original raises:
// hendrycks_strip_string, minerva_normalize, drop_normalize; cut_at_stops also takes "until".
class LineScorer {
 public:
  using FindScoring = std::function<const Scoring&(const std::string& task)>;
  // References of a document, for lines of code tasks, which lack the prompt.
  using FindReferences = std::function<text::chat::Value(const std::string& task, int64_t doc_id)>;
  LineScorer(FindScoring scoring, FindReferences references, RunProgram run)
      : scoring_(std::move(scoring)), references_(std::move(references)), run_(std::move(run)) {}

  // number: of the line, from 1. What is wrong with a line comes back as {"line", "error"}.
  std::string score(const std::string& line, int64_t number) const;

 private:
  FindScoring scoring_;
  FindReferences references_;
  RunProgram run_;
};

}  // namespace birkhoff::eval
