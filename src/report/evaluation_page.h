// Pages of evaluations by tasks: of one, and of several compared.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace birkhoff::report {

struct TaskSamples {
  std::string task;
  nlohmann::json samples;  // array, as the lines of samples_TASK.jsonl
};

// results: as in results.json. A metric is what has a "_stderr" beside it; bars are drawn for the "tasks" of each
// group. Of large sets the page holds as many samples a task as fit, chosen evenly, and long contexts without their
// beginning, and says so; it stays below 20 MB. Throws Error when the file cannot be written.
void write_evaluation_page(const std::string& path, const nlohmann::json& results,
                           const std::vector<TaskSamples>& samples);
// comparison: of eval::compare_results.
void write_evaluation_comparison(const std::string& path, const nlohmann::json& comparison);

}  // namespace birkhoff::report
