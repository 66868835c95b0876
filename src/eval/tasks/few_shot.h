// The pool of examples of a task, and which of them a document is shown.
#pragma once
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "eval/tasks/document.h"
#include "eval/tasks/python_random.h"

namespace birkhoff::eval {

// An example as it stands in a context.
struct Shot {
  text::chat::Value document;
  std::string text, target, gen_prefix;
};

// The text of a document's right answer: the right choice, or what "target" renders. of_shot: as a shot shows it.
std::string right_answer(const TaskDefinition& task, const Document& d, bool of_shot);
// Index of the right choice. Throws Error when it is none of the choices.
int64_t gold_index(const TaskDefinition& task, const Document& d, size_t choices);

class FewShotPool {
 public:
  // rows: of the pool's file, or nullptr with written samples; those from `first` on. task, maker and rows outlive it.
  FewShotPool(const TaskDefinition& task, const DocumentMaker& maker, const Rows* rows, int64_t first);
  int64_t size() const { return size_; }
  const Shot& shot(int64_t i);  // made when it is first asked for
  // n rows for a document in the order they are shown: the draw of lm-evaluation-harness. Throws Error: the pool has
  // too few.
  std::vector<int64_t> draw(PythonRandom& random, int64_t n, const text::chat::Value& document);

 private:
  [[noreturn]] void too_few(int64_t n, int64_t there) const;
  bool is(int64_t i, const text::chat::Value& document);
  std::vector<int64_t> first(int64_t n, const text::chat::Value& document);
  const TaskDefinition& task_;
  const DocumentMaker& maker_;
  const Rows* rows_;
  int64_t first_, size_;
  std::vector<text::chat::Value> samples_;
  std::unordered_map<int64_t, Shot> shots_;
};

}  // namespace birkhoff::eval
