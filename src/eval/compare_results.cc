#include "eval/compare_results.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <optional>

#include "core/error.h"
#include "eval/statistics.h"
#include "io/json_file.h"
#include "io/user_files.h"

namespace birkhoff::eval {
namespace {

using nlohmann::json;

constexpr size_t kExamples = 20, kContextEnd = 1500;

struct Sample {
  std::map<std::string, double> scores;  // by "metric" or "metric,filter"
  size_t prompt = 0;                     // hash
  std::string context_end, answer;
};
using Samples = std::map<int64_t, Sample>;  // by doc_id

struct Evaluation {
  std::string directory, name;
  json results;
};

// Scores of both over the documents they share, by metric.
struct Pairs {
  std::vector<int64_t> documents;
  std::vector<double> a, b;
};
using PairedMetrics = std::map<std::string, Pairs>;

// The last bytes of a text from the beginning of a character on.
std::string end_of(const std::string& text, size_t most) {
  if (text.size() <= most) return text;
  size_t at = text.size() - most;
  while (at < text.size() && (text[at] & 0xC0) == 0x80) ++at;
  return "\u2026" + text.substr(at);
}

std::string answer_of(const json& sample) {
  if (sample.contains("generated")) return sample["generated"].get<std::string>();
  const json choices = sample.value("choices", json::array());
  const json* best = nullptr;
  for (const json& c : choices)
    if (!best || c.at("logprob") > best->at("logprob")) best = &c;
  return best ? best->at("continuation").get<std::string>() : "";
}

void take_scores(const json& metrics, const std::string& filter, std::map<std::string, double>& scores) {
  for (const auto& [name, value] : metrics.items())
    if (value.is_number() || value.is_boolean())
      scores[filter.empty() || filter == "none" ? name : name + "," + filter] =
          value.is_boolean() ? static_cast<double>(value.get<bool>()) : value.get<double>();
}

Sample read_sample(const json& line) {
  Sample s;
  if (line.contains("metrics")) take_scores(line["metrics"], "", s.scores);
  const json filters = line.value("filters", json::object());
  for (const auto& [filter, judged] : filters.items()) take_scores(judged, filter, s.scores);
  if (line.contains("gold_nats_per_byte"))
    take_scores({{"gold_nats_per_byte", line["gold_nats_per_byte"]}}, "", s.scores);
  const json& context = line.at("context");
  const std::string prompt = context.is_string() ? context.get<std::string>() : context.dump();
  s.prompt = std::hash<std::string>()(prompt);
  s.context_end = end_of(prompt, kContextEnd);
  s.answer = answer_of(line);
  return s;
}

Samples read_samples(const std::string& path) {
  if (!io::is_file(path)) io::file_error(path, "samples of a task", ENOENT);
  std::ifstream in(path, std::ios::binary);
  Samples samples;
  int64_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    try {
      const json sample = json::parse(line);
      samples[sample.at("doc_id").get<int64_t>()] = read_sample(sample);
    } catch (const json::exception& e) {
      throw Error("eval", path + ":" + std::to_string(number) + ": no sample: " + e.what(),
                  "run the evaluation again, or delete the line");
    }
  }
  return samples;
}

Evaluation open_evaluation(const std::string& directory) {
  const auto path = std::filesystem::path(directory).lexically_normal();
  Evaluation e{directory, (path.has_filename() ? path : path.parent_path()).filename().string(),
               io::read_json(directory + "/results.json")};
  if (!e.results.is_object() || !e.results.value("results", json()).is_object())
    throw Error("eval", directory + "/results.json: no \"results\" of tasks",
                "name a directory that birkhoff eval --tasks --out has written");
  return e;
}

std::string counted(size_t n, const std::string& what) { return std::to_string(n) + " " + what + (n == 1 ? "" : "s"); }

class Comparison {
 public:
  Comparison(const Evaluation& a, const Evaluation& b) : a_(a), b_(b) {
    for (const auto& [task, figures] : a.results["results"].items()) compare_task(task, figures);
    for (const auto& task : b.results["results"].items())
      if (!a.results["results"].contains(task.key())) note(task.key() + ": only in " + b.name);
    const json groups = a.results.value("groups", json::object());
    for (const auto& group : groups.items())
      if (group.value().is_object() && group.value().contains("tasks"))
        compare_group(group.key(), group.value()["tasks"]);
    if (tasks_.empty()) {
      std::string why;
      for (const json& n : notes_) why += (why.empty() ? "" : "; ") + n.get<std::string>();
      throw Error(
          "eval",
          a.directory + " and " + b.directory + " have no documents in common" + (why.empty() ? "" : ": " + why),
          "evaluate both on the same tasks with the same settings");
    }
  }
  json result() const {
    return {{"notes", notes_}, {"settings", differing_settings()}, {"tasks", tasks_}, {"groups", groups_}};
  }

 private:
  void note(const std::string& text) { notes_.push_back(text); }

  // False, and why, when the figures of a task are not of the same questions.
  bool same_task(const std::string& task, const json& a) {
    if (!b_.results["results"].contains(task)) {
      note(task + ": only in " + a_.name);
      return false;
    }
    const json& b = b_.results["results"][task];
    for (const char* key : {"version", "num_fewshot"})
      if (a.value(key, json()) != b.value(key, json())) {
        note(task + ": left out, " + key + " " + a.value(key, json()).dump() + " in " + a_.name + ", " +
             b.value(key, json()).dump() + " in " + b_.name);
        return false;
      }
    return true;
  }

  void compare_task(const std::string& task, const json& figures) {
    if (!same_task(task, figures)) return;
    const Samples a = read_samples(a_.directory + "/samples_" + task + ".jsonl"),
                  b = read_samples(b_.directory + "/samples_" + task + ".jsonl");
    PairedMetrics& pairs = pairs_[task];
    std::vector<int64_t> common;
    size_t other_prompts = 0;
    for (const auto& [id, sample] : a) {
      const auto it = b.find(id);
      if (it == b.end()) continue;
      if (it->second.prompt != sample.prompt) {
        ++other_prompts;
        continue;
      }
      common.push_back(id);
      for (const auto& [metric, score] : sample.scores)
        if (const auto other = it->second.scores.find(metric); other != it->second.scores.end()) {
          pairs[metric].documents.push_back(id);
          pairs[metric].a.push_back(score);
          pairs[metric].b.push_back(other->second);
        }
    }
    const size_t shared = common.size() + other_prompts;
    if (shared < a.size()) note(task + ": " + counted(a.size() - shared, "document") + " only in " + a_.name);
    if (shared < b.size()) note(task + ": " + counted(b.size() - shared, "document") + " only in " + b_.name);
    if (other_prompts) note(task + ": " + counted(other_prompts, "document") + " left out, whose prompts differ");
    if (pairs.empty()) {
      pairs_.erase(task);
      return;
    }
    json metrics = json::object();
    for (const auto& [metric, p] : pairs)
      metrics[metric] = figures_of(metric, p, mean_score(p.a), mean_score(p.b), /*list=*/true);
    tasks_[task] = {{"n", common.size()}, {"metrics", metrics}, {"examples", examples(common, a, b)}};
  }

  void compare_group(const std::string& group, const json& members) {
    PairedMetrics all;
    std::map<std::string, std::vector<MeanScore>> a, b;
    size_t present = 0;
    for (const json& member : members) {
      const auto it = pairs_.find(member.get<std::string>());
      if (it == pairs_.end()) continue;
      ++present;
      for (const auto& [metric, p] : it->second) {
        all[metric].a.insert(all[metric].a.end(), p.a.begin(), p.a.end());
        all[metric].b.insert(all[metric].b.end(), p.b.begin(), p.b.end());
        a[metric].push_back(mean_score(p.a));
        b[metric].push_back(mean_score(p.b));
      }
    }
    if (present < members.size())
      note(group + ": " + std::to_string(present) + " of its " + counted(members.size(), "task") + " can be compared");
    json metrics = json::object();
    size_t n = 0;
    for (const auto& [metric, p] : all) {
      metrics[metric] = figures_of(metric, p, pooled_score(a[metric]), pooled_score(b[metric]), /*list=*/false);
      n = std::max(n, p.a.size());
    }
    if (n) groups_[group] = {{"n", n}, {"metrics", metrics}};
  }

  static json figures_of(const std::string& metric, const Pairs& p, const MeanScore& a, const MeanScore& b, bool list) {
    const auto number = [](double v) { return std::isfinite(v) ? json(v) : json(); };
    const PairedDifference d = paired_difference(p.a, p.b);
    const bool more = d.low > 0, less = d.high < 0, b_is_better = lower_is_better(metric) ? less : more;
    json f = {{"a", number(a.mean)},
              {"a_stderr", number(a.stderr_.value_or(NAN))},
              {"b", number(b.mean)},
              {"b_stderr", number(b.stderr_.value_or(NAN))},
              {"difference", number(d.mean)},
              {"stderr", number(d.stderr_)},
              {"low", number(d.low)},
              {"high", number(d.high)},
              {"n", d.n},
              {"better", !more && !less ? ""
                         : b_is_better  ? "b"
                                        : "a"}};
    if (!d.mcnemar) return f;
    f["mcnemar"] = *d.mcnemar;
    f["a_alone"] = list ? json::array() : json(d.a_alone);
    f["b_alone"] = list ? json::array() : json(d.b_alone);
    for (size_t i = 0; list && i < p.a.size(); ++i)
      if (p.a[i] != p.b[i]) f[p.a[i] > p.b[i] ? "a_alone" : "b_alone"].push_back(p.documents[i]);
    return f;
  }

  // Documents whose scores differ, evenly over the task, at most kExamples. Metrics of every document, such as a loss,
  // differ everywhere: they alone make no example.
  static json examples(const std::vector<int64_t>& common, const Samples& a, const Samples& b) {
    std::vector<int64_t> differing;
    for (const int64_t id : common)
      for (const auto& [metric, score] : a.at(id).scores)
        if (const auto it = b.at(id).scores.find(metric);
            !lower_is_better(metric) && it != b.at(id).scores.end() && it->second != score) {
          differing.push_back(id);
          break;
        }
    json list = json::array();
    const size_t count = std::min(kExamples, differing.size());
    for (size_t i = 0; i < count; ++i) {
      const int64_t id = differing[i * differing.size() / count];
      const Sample &x = a.at(id), &y = b.at(id);
      list.push_back({{"doc_id", id},
                      {"context", x.context_end},
                      {"a", x.answer},
                      {"b", y.answer},
                      {"a_scores", x.scores},
                      {"b_scores", y.scores}});
    }
    return list;
  }

  json differing_settings() const {
    const json a = a_.results.value("settings", json::object()), b = b_.results.value("settings", json::object());
    json all = a, differing = json::object();
    all.update(b);
    for (const auto& setting : all.items()) {
      const std::string& key = setting.key();
      if (a.value(key, json()) != b.value(key, json())) differing[key] = {a.value(key, json()), b.value(key, json())};
    }
    return differing;
  }

  const Evaluation &a_, &b_;
  std::map<std::string, PairedMetrics> pairs_;
  json notes_ = json::array(), tasks_ = json::object(), groups_ = json::object();
};

}  // namespace

bool lower_is_better(const std::string& metric) { return metric.find("nats_per_") != std::string::npos; }

json compare_results(const std::vector<std::string>& directories) {
  if (directories.size() < 2)
    throw Error("eval", "a comparison is of two evaluations or more, not " + std::to_string(directories.size()),
                "birkhoff eval --compare DIR DIR", ExitCode::usage);
  std::vector<Evaluation> all;
  for (const std::string& d : directories) all.push_back(open_evaluation(d));
  for (Evaluation& e : all)  // names that tell them apart
    if (std::count_if(all.begin(), all.end(), [&](const Evaluation& o) { return o.name == e.name; }) > 1 ||
        e.name.empty())
      e.name = e.directory;
  json evaluations = json::array(), comparisons = json::array();
  for (const Evaluation& e : all)
    evaluations.push_back({{"name", e.name},
                           {"directory", e.directory},
                           {"model", e.results.value("model", json())},
                           {"settings", e.results.value("settings", json::object())}});
  for (size_t i = 1; i < all.size(); ++i) {
    json c = Comparison(all[0], all[i]).result();
    c["a"] = 0;
    c["b"] = i;
    comparisons.push_back(std::move(c));
  }
  return {{"evaluations", evaluations}, {"comparisons", comparisons}};
}

namespace {

std::string fixed(const json& v, bool sign = false) {
  if (!v.is_number()) return "-";
  char text[32];
  std::snprintf(text, sizeof text, sign ? "%+.4f" : "%.4f", v.get<double>());
  return text;
}

std::string with_error(const json& value, const json& error) {
  return error.is_number() ? fixed(value) + " +- " + fixed(error) : fixed(value);
}

std::string count_of(const json& alone) {
  return alone.is_null() ? "" : std::to_string(alone.is_array() ? alone.size() : alone.get<size_t>());
}

using Row = std::vector<std::string>;

std::string aligned(const std::vector<Row>& rows) {
  std::vector<size_t> width(rows[0].size(), 0);
  for (const Row& r : rows)
    for (size_t c = 0; c < r.size(); ++c) width[c] = std::max(width[c], r[c].size());
  std::string text;
  for (const Row& r : rows) {
    std::string line;
    for (size_t c = 0; c < r.size(); ++c) line += (c ? "  " : "") + r[c] + std::string(width[c] - r[c].size(), ' ');
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

}  // namespace

std::string comparison_table(const json& comparison) {
  std::string text;
  const json& evaluations = comparison["evaluations"];
  for (const json& c : comparison["comparisons"]) {
    const std::string a = evaluations[c["a"].get<size_t>()]["name"], b = evaluations[c["b"].get<size_t>()]["name"];
    std::vector<Row> rows = {{"task", "metric", "n", a, b, "difference", "95 %", "p", "alone", "better"}};
    for (const char* kind : {"groups", "tasks"})
      for (const auto& [task, figures] : c[kind].items())
        for (const auto& [metric, f] : figures["metrics"].items()) {
          const std::string better = f["better"];
          rows.push_back({task, metric, f["n"].dump(), with_error(f["a"], f["a_stderr"]),
                          with_error(f["b"], f["b_stderr"]), fixed(f["difference"], true),
                          "[" + fixed(f["low"], true) + ", " + fixed(f["high"], true) + "]",
                          f.contains("mcnemar") ? fixed(f["mcnemar"]) : "",
                          f.contains("mcnemar") ? count_of(f["a_alone"]) + " : " + count_of(f["b_alone"]) : "",
                          better == "a"   ? a
                          : better == "b" ? b
                                          : ""});
        }
    text += (text.empty() ? "" : "\n") + aligned(rows);
    for (const auto& [key, values] : c["settings"].items())
      text += "differs: " + key + " " + values[0].dump() + " in " + a + ", " + values[1].dump() + " in " + b + "\n";
    for (const json& n : c["notes"]) text += "note: " + n.get<std::string>() + "\n";
  }
  return text;
}

}  // namespace birkhoff::eval
