#include "report/evaluation_page.h"

#include <algorithm>

#include "io/atomic_file.h"
#include "report/page.h"

namespace birkhoff::report {
namespace {

using nlohmann::json;

constexpr size_t kPageBytes = size_t{16} << 20, kMostSamples = 500, kContextEnd = 6000;

// The key of a metric's error: before the filter, as the harness writes it, or at the end.
std::string error_key(const json& figures, const std::string& metric) {
  const size_t comma = std::min(metric.find(','), metric.size());
  for (const std::string& key : {metric.substr(0, comma) + "_stderr" + metric.substr(comma), metric + "_stderr"})
    if (figures.contains(key)) return key;
  return "";
}

json entry_of(const std::string& name, const json& figures) {
  json metrics = json::array();
  for (const auto& [key, value] : figures.items())
    if (const std::string error = error_key(figures, key); value.is_number() && !error.empty())
      metrics.push_back(
          {{"name", key}, {"value", value}, {"error", figures[error].is_number() ? figures[error] : json()}});
  json e = {{"name", name}, {"metrics", metrics}};
  for (const char* key : {"n", "version", "num_fewshot", "tasks"})
    if (figures.contains(key)) e[key] = figures[key];
  return e;
}

json entries_of(const json& results, const char* kind) {
  json list = json::array();
  const json all = results.value(kind, json::object());
  for (const auto& [name, figures] : all.items())
    if (figures.is_object()) list.push_back(entry_of(name, figures));
  return list;
}

std::string without_beginning(const std::string& text) {
  if (text.size() <= kContextEnd) return text;
  size_t at = text.size() - kContextEnd;
  while (at < text.size() && (text[at] & 0xC0) == 0x80) ++at;
  return "\u2026" + text.substr(at);
}

json shown(json sample) {
  if (sample.contains("context") && sample["context"].is_string())
    sample["context"] = without_beginning(sample["context"].get<std::string>());
  return sample;
}

// As it stands in the page, where "<" takes six bytes.
size_t page_bytes(const json& value) {
  const std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  return text.size() + 5 * static_cast<size_t>(std::count(text.begin(), text.end(), '<'));
}

// Of n things every n / most-th, with the first.
json evenly(const json& list, size_t most) {
  json chosen = json::array();
  const size_t count = std::min(most, list.size());
  for (size_t i = 0; i < count; ++i) chosen.push_back(shown(list[i * list.size() / count]));
  return chosen;
}

json samples_of(const TaskSamples& s, size_t most_bytes) {
  size_t most = kMostSamples;
  json kept = evenly(s.samples, most);
  for (size_t bytes; most > 0 && (bytes = page_bytes(kept)) > most_bytes;) {
    most = std::min(most - 1, kept.size() * most_bytes / bytes);
    kept = evenly(s.samples, most);
  }
  return {{"task", s.task}, {"total", s.samples.size()}, {"rows", kept}};
}

std::string name_of(const json& model) {
  if (model.is_string()) return model.get<std::string>();
  for (const char* key : {"name", "path", "directory"})
    if (model.is_object() && model.contains(key) && model[key].is_string()) return model[key].get<std::string>();
  return "a model";
}

}  // namespace

void write_evaluation_page(const std::string& path, const json& results, const std::vector<TaskSamples>& samples) {
  json list = json::array();
  for (const TaskSamples& s : samples) list.push_back(samples_of(s, kPageBytes / samples.size()));
  const json model = results.value("model", json());
  const std::string name = name_of(model);
  const json page = {{"name", name},
                     {"model", model},
                     {"settings", results.value("settings", json::object())},
                     {"groups", entries_of(results, "groups")},
                     {"tasks", entries_of(results, "results")},
                     {"samples", list}};
  io::write_file_atomic(path, whole_page("Evaluation of " + name, {{"evaluation", page}}));
}

void write_evaluation_comparison(const std::string& path, const json& comparison) {
  const size_t count = comparison.at("evaluations").size();
  io::write_file_atomic(
      path, whole_page("Comparison of " + std::to_string(count) + " evaluations", {{"comparison", comparison}}));
}

}  // namespace birkhoff::report
