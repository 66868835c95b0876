#include "report/run_data.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/error.h"
#include "io/json_file.h"
#include "io/user_files.h"

namespace birkhoff::report {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr size_t kPoints = 800;  // of a curve: about what a wide screen resolves
constexpr size_t kMaxRecordsBytes = size_t{4} << 30;
constexpr size_t kHeatColumns = 160;  // of a heat map over time

double value(const json& record, const char* key) {
  const auto it = record.find(key);
  return it != record.end() && it->is_number() ? it->get<double>() : NAN;
}

std::vector<double> column(const std::vector<json>& records, const char* key) {
  std::vector<double> out;
  for (const json& r : records) out.push_back(value(r, key));
  return out;
}

// {step: [...], key: [...], ...} of some columns, thinned alike.
json curves_of(const std::vector<json>& records) {
  json c;
  c["step"] = numbers(thinned(column(records, "step"), kPoints));
  for (const char* key : {"loss", "lr", "grad_norm", "tokens_per_s"})
    c[key] = numbers(thinned(column(records, key), kPoints));
  c["smooth"] = numbers(thinned(
      smoothed(column(records, "loss"), std::max<double>(5, static_cast<double>(records.size()) / 100)), kPoints));
  return c;
}

json validation_of(const std::vector<json>& records) {
  json out = json::array();
  for (const json& r : records)
    if (std::isfinite(value(r, "val_loss"))) out.push_back({r["step"], number(value(r, "val_loss"))});
  return out;
}

json gains_of(const std::vector<json>& records) {
  json out;
  for (const json& r : records) {
    if (!r.contains("gain") || !r["gain"].is_object()) continue;
    out["step"].push_back(r["step"]);
    for (const char* way : {"forward", "backward"}) {
      const json& g = r["gain"][way];
      out[way]["max_mean"].push_back(number(value(g["composite_max"], "mean")));
      out[way]["max"].push_back(number(value(g["composite_max"], "max")));
      out[way]["min_mean"].push_back(number(value(g["composite_min"], "mean")));
      out[way]["min"].push_back(number(value(g["composite_min"], "min")));
      out[way]["site"] = numbers(g["site"].get<std::vector<double>>());  // the last stays
    }
  }
  return out;
}

json maxvio_of(const std::vector<json>& records) {
  std::vector<double> step;
  std::vector<std::vector<double>> layers;
  std::vector<double> mean;
  for (const json& r : records) {
    if (!r.contains("maxvio") || !r["maxvio"].is_object() || !r["maxvio"]["layers"].is_array() ||
        r["maxvio"]["layers"].empty())
      continue;
    const json& all = r["maxvio"]["layers"];
    step.push_back(value(r, "step"));
    mean.push_back(value(r["maxvio"], "mean"));
    layers.resize(std::max(layers.size(), all.size()));
    for (size_t l = 0; l < all.size(); ++l) layers[l].push_back(all[l].get<double>());
  }
  if (step.empty()) return {};
  json out{
      {"step", numbers(thinned(step, kPoints))}, {"mean", numbers(thinned(mean, kPoints))}, {"layers", json::array()}};
  for (const auto& l : layers) out["layers"].push_back(numbers(thinned(l, kPoints)));
  return out;
}

// load[layer][expert][column]: share of the tokens over the even share, averaged over the column's records.
json load_of(const std::vector<json>& records) {
  std::vector<double> step;
  std::vector<std::vector<std::vector<double>>> series;  // [layer][expert][record]
  for (const json& r : records) {
    if (!r.contains("expert_load") || !r["expert_load"].is_array() || r["expert_load"].empty()) continue;
    step.push_back(value(r, "step"));
    series.resize(r["expert_load"].size());
    for (size_t l = 0; l < series.size(); ++l) {
      const auto load = r["expert_load"][l].get<std::vector<double>>();
      double sum = 0;
      for (const double v : load) sum += v;
      series[l].resize(load.size());
      for (size_t e = 0; e < load.size(); ++e)
        series[l][e].push_back(sum > 0 ? load[e] * static_cast<double>(load.size()) / sum : 0);
    }
  }
  if (step.empty()) return {};
  json out{{"step", numbers(thinned(step, kHeatColumns))}, {"layers", json::array()}};
  for (const auto& layer : series) {
    json experts = json::array();
    for (const auto& e : layer) {
      std::vector<double> v = thinned(e, kHeatColumns);
      for (double& x : v) x = std::round(x * 100) / 100;
      experts.push_back(v);
    }
    out["layers"].push_back(experts);
  }
  return out;
}

// Mean milliseconds a step by phase, and the share of matrix products, of the second half of the run.
json phases_of(const std::vector<json>& records) {
  std::map<std::string, double> sum;
  double gemm = 0, n = 0;
  for (size_t i = records.size() / 2; i < records.size(); ++i) {
    if (!records[i].contains("phase_ms") || !records[i]["phase_ms"].is_object()) continue;
    for (const auto& [name, ms] : records[i]["phase_ms"].items()) sum[name] += ms.is_number() ? ms.get<double>() : 0;
    gemm += std::isfinite(value(records[i], "gemm_share")) ? value(records[i], "gemm_share") : 0;
    ++n;
  }
  if (n == 0) return {};
  json ms;
  for (const auto& [name, v] : sum) ms[name] = number(v / n);
  return {{"ms", ms}, {"gemm_share", number(gemm / n)}};
}

json summary_of(const std::vector<json>& records, const json& run) {
  json s;
  s["steps"] = records.back()["step"];
  s["tokens"] = records.back().value("tokens", json());
  s["loss"] = number(smoothed(column(records, "loss"), 50).back());
  if (run.contains("final_val_loss")) s["val_loss"] = number(value(run, "final_val_loss"));
  double seconds = 0;
  for (const json& r : records) seconds += std::isfinite(value(r, "step_ms")) ? value(r, "step_ms") / 1e3 : 0;
  s["seconds"] = number(seconds);
  std::vector<double> speed = column(records, "tokens_per_s");
  std::nth_element(speed.begin(), speed.begin() + static_cast<std::ptrdiff_t>(speed.size() / 2), speed.end());
  s["tokens_per_s"] = number(speed[speed.size() / 2]);
  s["rss_mib"] = records.back().value("rss_mib", json());
  for (const char* key : {"parameters", "active_parameters", "status"})
    if (run.contains(key)) s[key] = run[key];
  return s;
}

}  // namespace

json number(double v) {
  if (!std::isfinite(v)) return nullptr;
  if (v == 0) return 0;
  const double scale = std::pow(10.0, 5 - std::ceil(std::log10(std::abs(v))));
  const double rounded = std::round(v * scale) / scale;
  return std::isfinite(rounded) ? rounded : v;
}
json numbers(const std::vector<double>& values) {
  json out = json::array();
  for (const double v : values) out.push_back(number(v));
  return out;
}

std::vector<json> read_metrics(const std::string& path) {
  if (!io::exists(path))
    throw Error("metrics", path + " cannot be read", "a run directory holds metrics.jsonl, config.json and run.json");
  std::istringstream in(io::read_file(path, kMaxRecordsBytes));  // not mapped: a run may be writing to it
  std::vector<json> records;
  for (std::string line; std::getline(in, line);) {
    json r = json::parse(line, nullptr, false);
    if (!r.is_object() || !r.contains("step") || !r["step"].is_number_integer()) continue;
    while (!records.empty() && records.back()["step"].get<int64_t>() >= r["step"].get<int64_t>()) records.pop_back();
    records.push_back(std::move(r));
  }
  return records;
}

std::vector<double> thinned(const std::vector<double>& values, size_t most) {
  if (values.size() <= most) return values;
  std::vector<double> out(most);
  for (size_t i = 0; i < most; ++i) {
    double sum = 0, n = 0;
    for (size_t j = i * values.size() / most; j < (i + 1) * values.size() / most; ++j) {
      if (!std::isfinite(values[j])) continue;
      sum += values[j];
      ++n;
    }
    out[i] = n > 0 ? sum / n : NAN;
  }
  return out;
}

std::vector<double> smoothed(const std::vector<double>& values, double span) {
  std::vector<double> out;
  double mean = NAN, seen = 0;
  for (const double v : values) {
    if (std::isfinite(v)) {
      ++seen;
      mean = seen == 1 ? v : mean + (v - mean) * std::max(1 / seen, 2 / (span + 1));
    }
    out.push_back(mean);
  }
  return out;
}

json run_data(const std::string& run) {
  if (!io::is_directory(run))
    throw Error("plot", run + " is not a directory", "name the run directories that train wrote");
  const std::vector<json> records = read_metrics(run + "/metrics.jsonl");
  if (records.empty())
    throw Error("plot", run + "/metrics.jsonl has no finished step", "train at least one step first");
  const json config = io::read_json(run + "/config.json");
  const json about = io::exists(run + "/run.json") ? io::read_json(run + "/run.json") : json::object();
  json d;
  d["name"] = fs::path(run).lexically_normal().filename().string();
  if (d["name"] == "") d["name"] = fs::path(run).lexically_normal().parent_path().filename().string();
  d["summary"] = summary_of(records, about);
  d["curves"] = curves_of(records);
  d["validation"] = validation_of(records);
  d["gains"] = gains_of(records);
  d["maxvio"] = maxvio_of(records);
  d["load"] = load_of(records);
  d["phases"] = phases_of(records);
  d["bytes"] = !io::exists(run + "/tokenizer.json") && !io::exists(run + "/tokenizer.model");
  d["config"] = config;
  d["training"] = config.contains("training") ? config["training"] : json::object();
  d["config"].erase("training");
  json machine;
  for (const char* key : {"cpu", "isa", "threads", "planned_mib", "command", "time"})
    if (about.contains(key)) machine[key] = about[key];
  d["machine"] = machine;
  return d;
}

}  // namespace birkhoff::report
