// Evaluations of several models over the same documents, side by side.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace birkhoff::eval {

// directories: at least two, written by `birkhoff eval --tasks` (results.json and samples_TASK.jsonl); each is compared
// with the first, document by document. Documents are a pair when doc_id and prompt are the same. What cannot be paired
// (tasks of one alone or of other versions or shots, documents of one alone or with other prompts) is left out and
// named in "notes". Throws Error: a missing or damaged file (with its line), nothing that can be paired.
//
// {"evaluations": [{"name", "directory", "model", "settings"}],
//  "comparisons": [{"a": 0, "b": i, "notes": [text], "settings": {key: [a, b]} of those that differ,
//                   "tasks": {task: {"n", "metrics": {...}, "examples": [...]}}, "groups": {group: {"n", "metrics"}}}]}
// metrics: {metric: {"a", "a_stderr", "b", "b_stderr", "difference" (b - a), "stderr", "low", "high" (95 %), "better"
// ("a", "b", or "" while the interval covers 0), and of scores 0 and 1 "mcnemar", "a_alone", "b_alone" (doc_ids; counts
// in groups)}}; a filter's metric is "metric,filter", as in the harness. examples: documents with different scores,
// {"doc_id", "context" (its end), "a", "b" (answers), "a_scores", "b_scores"}.
nlohmann::json compare_results(const std::vector<std::string>& directories);

// Of compare_results, for a terminal: a line a task and metric, notes below.
std::string comparison_table(const nlohmann::json& comparison);

// Whether a metric falls as a model gets better.
bool lower_is_better(const std::string& metric);

}  // namespace birkhoff::eval
