#include "lab/compare/results.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <fstream>

#include "core/cpu.h"
#include "core/error.h"
#include "core/process.h"
#include "io/json_file.h"
#include "io/user_files.h"
#include "lab/compare/statistics.h"
#include "model/config/inventory.h"
#include "report/run_data.h"

namespace birkhoff::lab {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;
using report::number;
using report::numbers;
using report::thinned;

constexpr int kFormat = 1;
constexpr size_t kCurvePoints = 80, kGainPoints = 50, kLoadColumns = 20, kLoadLayers = 4;

std::vector<double> column(const json& list) {
  std::vector<double> out;
  for (const json& v : list) out.push_back(v.is_number() ? v.get<double>() : NAN);
  return out;
}
json thin(const json& list, size_t most) { return numbers(thinned(column(list), most)); }

// Mean of the last tenth, at least one value.
double tail_mean(const json& list) {
  const std::vector<double> all = column(list);
  const size_t n = std::max<size_t>(1, all.size() / 10);
  return all.empty() ? NAN
                     : mean_of({all.end() - static_cast<std::ptrdiff_t>(std::min(n, all.size())), all.end()}).mean;
}

json thin_gains(const json& g) {
  if (g.is_null()) return nullptr;
  json out{{"step", thin(g["step"], kGainPoints)}};
  for (const char* way : {"forward", "backward"}) {
    for (const char* key : {"max_mean", "max", "min_mean", "min"}) out[way][key] = thin(g[way][key], kGainPoints);
    out[way]["site"] = numbers(column(g[way]["site"]));
  }
  return out;
}

// Extremes over the logged steps and both directions: of the mean over tokens, and of any token.
void gain_figures(const json& g, json& figures) {
  if (g.is_null()) return;
  const auto extreme = [&](const char* key, bool largest) -> double {
    std::vector<double> all;
    for (const char* way : {"forward", "backward"})
      for (const double v : column(g[way][key]))
        if (std::isfinite(v)) all.push_back(v);
    if (all.empty()) return NAN;
    return largest ? *std::max_element(all.begin(), all.end()) : *std::min_element(all.begin(), all.end());
  };
  figures["gain_max"] = number(extreme("max_mean", true));
  figures["gain_min"] = number(extreme("min_mean", false));
  figures["gain_max_token"] = number(extreme("max", true));
  figures["gain_min_token"] = number(extreme("min", false));
}

// Of a few layers spread over the depth, the first and the last among them.
json thin_load(const json& load) {
  if (load.is_null()) return nullptr;
  json out{{"step", thin(load["step"], kLoadColumns)}, {"layer", json::array()}, {"layers", json::array()}};
  const size_t all = load["layers"].size(), kept = std::min(all, kLoadLayers);
  for (size_t i = 0; i < kept; ++i) {
    const size_t l = kept == 1 ? 0 : i * (all - 1) / (kept - 1);
    out["layer"].push_back(l + 1);
    json experts = json::array();
    for (const json& e : load["layers"][l]) {
      json values = json::array();
      for (const double v : thinned(column(e), kLoadColumns)) values.push_back(std::round(v * 100) / 100);
      experts.push_back(values);
    }
    out["layers"].push_back(experts);
  }
  return out;
}

json figures_of(const RunSpec& spec, const json& data) {
  const model::Inventory v = model::take_inventory(spec.config.model);
  const train::TrainConfig& t = spec.config.train;
  json f{{"parameters", v.total}, {"active_parameters", v.active}, {"kv_bytes", v.kv_bytes_per_token}};
  if (spec.config.model.n_routed_experts)
    f["combinations"] = combinations(spec.config.model.n_routed_experts, spec.config.model.num_experts_per_tok);
  f["tokens_per_s"] = data["summary"]["tokens_per_s"];
  f["step_ms"] =
      number(1e3 * static_cast<double>(t.batch_size * t.seq_len) / data["summary"]["tokens_per_s"].get<double>());
  f["seconds"] = number(f["step_ms"].get<double>() * data["summary"]["steps"].get<double>() /
                        1e3);  // the sum would hold every pause of the process
  f["rss_mib"] = data["summary"]["rss_mib"];
  f["planned_mib"] = data["machine"].value("planned_mib", json());
  f["train_loss"] = number(tail_mean(data["curves"]["loss"]));
  if (!data["maxvio"].is_null()) f["maxvio"] = number(tail_mean(data["maxvio"]["mean"]));
  gain_figures(data["gains"], f);
  return f;
}

json record_of(const RunSpec& spec) {
  json r{{"seed", spec.seed}};
  const RunState state = state_of(spec.directory);
  r["status"] = state == RunState::done                                             ? "done"
                : state == RunState::started || io::exists(spec.directory + ".log") ? "failed"
                                                                                    : "absent";
  if (r["status"] == "failed") r["message"] = last_message(spec.directory + ".log");
  json data, figures;
  try {
    data = report::run_data(spec.directory);
    figures = figures_of(spec, data);
  } catch (const std::exception&
               e) {  // it ended before its first step, or its files are damaged: the others count all the same
    if (state == RunState::done) {
      r["status"] = "failed";
      r["message"] = e.what();
    }
    return r;
  }
  r["figures"] = figures;
  if (state == RunState::done) r["figures"]["val_loss"] = io::read_json(spec.directory + "/run.json")["final_val_loss"];
  r["steps"] = data["summary"]["steps"];
  r["curves"] = {{"step", thin(data["curves"]["step"], kCurvePoints)},
                 {"loss", thin(data["curves"]["loss"], kCurvePoints)},
                 {"grad_norm", thin(data["curves"]["grad_norm"], kCurvePoints)}};
  r["validation"] = data["validation"];
  if (!data["gains"].is_null()) r["gains"] = thin_gains(data["gains"]);
  if (!data["maxvio"].is_null())
    r["maxvio"] = {{"step", thin(data["maxvio"]["step"], kCurvePoints)},
                   {"mean", thin(data["maxvio"]["mean"], kCurvePoints)}};
  if (!data["load"].is_null() && spec.seed == 1) r["load"] = thin_load(data["load"]);
  return r;
}

// All settings of a run under their names, the seed left out.
json flat_settings(const train::RunConfig& config) {
  json j = train::run_config_to_json(config);
  json flat = j["training"];
  j.erase("training");
  flat.update(j);
  flat.erase("seed");
  return flat;
}

// Loss is per token; where no run has a tokenizer, tokens are bytes.
std::string unit_of(const std::vector<RunSpec>& runs) {
  for (const RunSpec& r : runs)
    for (const char* name : {"tokenizer.json", "tokenizer.model"})
      if (io::exists(r.directory + "/" + name)) return "nats per token";
  return "nats per byte";
}

json machine_of(const std::vector<RunSpec>& runs, const Circumstances& c) {
  json m{{"side_by_side", c.side_by_side}, {"cores", cpu_cores()}, {"memory_mib", machine_memory_bytes() >> 20}};
  for (const RunSpec& r : runs) {
    if (state_of(r.directory) != RunState::done) continue;
    const json run = io::read_json(r.directory + "/run.json");
    for (const char* key : {"cpu", "isa", "threads"}) m[key] = run.value(key, json());
    break;
  }
  return m;
}

}  // namespace

RunState state_of(const std::string& directory) {
  if (!io::exists(directory + "/config.json")) return RunState::absent;
  if (!io::exists(directory + "/run.json")) return RunState::started;
  const json run = io::read_json(directory + "/run.json");
  return run.value("status", "") == "done" && run.contains("final_val_loss") ? RunState::done : RunState::started;
}

int64_t saved_step(const std::string& directory) {
  std::error_code ec;
  const std::string name = fs::read_symlink(directory + "/latest", ec).filename().string();  // step-N
  return ec ? 0 : std::atoll(name.c_str() + std::min(name.size(), name.find('-') + 1));
}

std::string last_message(const std::string& log) {
  std::ifstream in(log);
  std::string message;
  for (std::string line; std::getline(in, line);)
    if (line.rfind("birkhoff: ", 0) == 0) message = line.substr(10);
  return message;
}

json collect_results(const Study& study, const std::vector<RunSpec>& runs, const Circumstances& c) {
  std::vector<json> settings(study.variants.size());
  for (const RunSpec& r : runs) settings[r.variant] = flat_settings(r.config);
  json common = json::object();
  for (const auto& item : settings[0].items()) {
    const auto same = [&](const json& s) { return s.contains(item.key()) && s[item.key()] == item.value(); };
    if (std::all_of(settings.begin(), settings.end(), same)) common[item.key()] = item.value();
  }
  json variants = json::array();
  for (size_t v = 0; v < study.variants.size(); ++v) {
    json differing = json::object();
    for (const auto& [key, value] : settings[v].items())
      if (!common.contains(key)) differing[key] = value;
    variants.push_back({{"name", study.variants[v].name},
                        {"group", study.variants[v].group},
                        {"differing", differing},
                        {"runs", json::array()}});
  }
  for (const RunSpec& r : runs) variants[r.variant]["runs"].push_back(record_of(r));
  char when[32];
  const std::time_t now = std::time(nullptr);
  std::strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  return {{"format", kFormat},
          {"study", to_json(study)},
          {"command", c.command},
          {"time", when},
          {"machine", machine_of(runs, c)},
          {"unit", unit_of(runs)},
          {"settings", common},
          {"variants", variants}};
}

json read_results(const std::string& path) {
  const json j = io::read_json(path);
  const std::string hint = "results.json of birkhoff compare is expected";
  if (!j.is_object() || !j.contains("format") || !j.contains("variants") || !j.contains("study"))
    throw Error("compare", path + ": holds no results of a study", hint);
  if (j["format"] != kFormat)
    throw Error("compare", path + ": format " + j["format"].dump() + ", this program reads " + std::to_string(kFormat),
                hint);
  const auto require = [&](bool holds, const std::string& what) {
    if (!holds) throw Error("compare", path + ": " + what, hint);
  };
  require(j["study"].is_object(), "study is no object");
  require(j.contains("unit") && j["unit"].is_string(), "unit is no text");
  require(j["variants"].is_array() && !j["variants"].empty(), "variants is no list, or empty");
  for (const json& v : j["variants"]) {
    require(
        v.is_object() && v.contains("name") && v["name"].is_string() && v.contains("group") && v["group"].is_string(),
        "a variant has no name or group");
    require(v.contains("runs") && v["runs"].is_array(), "variant " + v["name"].dump() + ": runs is no list");
    for (const json& r : v["runs"])
      require(r.is_object() && r.contains("status") && r["status"].is_string() && r.contains("seed") &&
                  r["seed"].is_number_integer() &&
                  (r["status"] != "done" || (r.contains("figures") && r["figures"].is_object())),
              "variant " + v["name"].dump() + ": a run without seed, status or figures");
  }
  return j;
}

const std::vector<std::string>& figure_names() {
  static const std::vector<std::string> names = {"val_loss",          "train_loss", "step_ms",        "tokens_per_s",
                                                 "seconds",           "rss_mib",    "planned_mib",    "parameters",
                                                 "active_parameters", "kv_bytes",   "combinations",   "maxvio",
                                                 "gain_max",          "gain_min",   "gain_max_token", "gain_min_token"};
  return names;
}

}  // namespace birkhoff::lab
