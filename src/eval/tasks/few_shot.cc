#include "eval/tasks/few_shot.h"

#include "core/error.h"

namespace birkhoff::eval {

using text::chat::Kind;
using text::chat::Value;

int64_t gold_index(const TaskDefinition& task, const Document& d, size_t choices) {
  const Value gold = evaluated(*task.gold, d, "gold");
  if (!gold.is(Kind::integer) || gold.as_int() < 0 || gold.as_int() >= static_cast<int64_t>(choices))
    throw Error("data", d.place + ": gold: an index from 0 to " + std::to_string(choices - 1) + " was expected, not " +
                            (gold.is(Kind::integer) ? std::to_string(gold.as_int()) : text::chat::type_name(gold)));
  return gold.as_int();
}

std::string right_answer(const TaskDefinition& task, const Document& d, bool of_shot) {
  if (of_shot && task.shots.target) return rendered(*task.shots.target, d, "shots: target");
  if (!task.choices) return rendered(*task.target, d, "target");
  const std::vector<std::string> choices = evaluated_texts(*task.choices, d, "choices");
  return choices[static_cast<size_t>(gold_index(task, d, choices.size()))];
}

FewShotPool::FewShotPool(const TaskDefinition& task, const DocumentMaker& maker, const Rows* rows, int64_t first)
    : task_(task), maker_(maker), rows_(rows), first_(first), samples_(task.shots.samples) {
  if (!rows && task.shots.samples_of) {
    const std::string place = task.where + ": shots: samples";
    const Value made = at_place(place, [&] { return task.shots.samples_of->evaluate(maker.scope(), kTaskLimits, 0); });
    if (!made.is(Kind::list)) throw Error("task", place + ": a list was expected, not " + type_name(made));
    samples_ = made.items();
    for (const Value& v : samples_)
      if (!v.is(Kind::string) && !v.is(Kind::dict)) throw Error("task", place + ": it holds " + type_name(v));
  }
  size_ = rows ? rows->size() - first : static_cast<int64_t>(samples_.size());
}

const Shot& FewShotPool::shot(int64_t i) {
  const auto it = shots_.find(i);
  if (it != shots_.end()) return it->second;
  const Document d = rows_ ? maker_.of_row(rows_->row(first_ + i), rows_->number(first_ + i), rows_->place(first_ + i))
                           : maker_.of_sample(samples_[static_cast<size_t>(i)],
                                              task_.where + ": shots: samples[" + std::to_string(i) + "]");
  Shot shot{d.value, rendered(task_.shots.text ? *task_.shots.text : *task_.text, d, "text"),
            right_answer(task_, d, true), task_.gen_prefix ? rendered(*task_.gen_prefix, d, "gen_prefix") : ""};
  return shots_.emplace(i, std::move(shot)).first->second;
}

void FewShotPool::too_few(int64_t n, int64_t there) const {
  throw Error(
      "task",
      task_.name + ": " + std::to_string(n) + " few-shot examples were asked for, there are " + std::to_string(there),
      "ask for fewer, or give more rows");
}

bool FewShotPool::is(int64_t i, const Value& document) { return equal(shot(i).document, document); }

std::vector<int64_t> FewShotPool::first(int64_t n, const Value& document) {
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < size_ && static_cast<int64_t>(rows.size()) < n; ++i)
    if (!task_.shots.may_hold_document || !is(i, document)) rows.push_back(i);
  if (static_cast<int64_t>(rows.size()) < n) too_few(n, static_cast<int64_t>(rows.size()));
  return rows;
}

std::vector<int64_t> FewShotPool::draw(PythonRandom& random, int64_t n, const Value& document) {
  if (n == 0) return {};
  if (!task_.shots.random) return first(n, document);
  const bool one_more = task_.shots.may_hold_document;
  if (n + one_more > size_) too_few(n + one_more, size_);
  std::vector<int64_t> rows = random.sample(size_, n + one_more);
  if (!one_more) return rows;
  std::erase_if(rows, [&](int64_t i) { return is(i, document); });
  if (static_cast<int64_t>(rows.size()) < n) {  // it stood there more than once
    std::vector<int64_t> others;
    for (int64_t i = 0; i < size_; ++i)
      if (!is(i, document)) others.push_back(i);
    if (n > static_cast<int64_t>(others.size())) too_few(n, static_cast<int64_t>(others.size()));
    rows = random.sample(static_cast<int64_t>(others.size()), n);
    for (int64_t& row : rows) row = others[static_cast<size_t>(row)];
  }
  rows.resize(static_cast<size_t>(n));
  return rows;
}

}  // namespace birkhoff::eval
