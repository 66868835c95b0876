#include "lab/plan/schedule.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <set>

#include "core/error.h"
#include "io/json_file.h"
#include "io/user_files.h"
#include "model/memory_plan.h"
#include "train/run_data.h"
#include "train/train_state.h"

namespace birkhoff::lab {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int64_t kTimedSteps = 2;
constexpr double kForwardShare = 1.0 / 3;  // of a step's work
constexpr int64_t kSampleWindows = 32;     // of a validation during the run

// Run directories hold absolute data paths, so that a run can be resumed from anywhere.
std::vector<std::string> absolute_data(const Study& study) {
  std::vector<std::string> out;
  for (const std::string& d : study.data) out.push_back(fs::absolute(d).lexically_normal().string());
  return out;
}

json without_type(train::RunConfig c) {
  c.model.model_type = model::kOwnType;
  c.model.unknown_keys = "{}";
  json j = train::run_config_to_json(c);
  const json training = j["training"];
  j.erase("training");
  j.update(training);
  return j;
}

[[noreturn]] void refuse(const RunSpec& r, const std::string& key, const json& was, const json& now) {
  throw Error("compare",
              r.directory + ": " + key + ": the run has " + was.dump() + ", the study asks for " + now.dump(),
              "restore the study, choose another --out, or remove that run");
}

train::RunData open_data(const train::RunConfig& c, const std::vector<std::string>& data) {
  train::TrainOptions o;
  o.data = data;
  return train::open_run_data(o, c, nullptr, "");
}

double run_seconds(const train::RunConfig& c, const std::vector<std::string>& data, int threads) {
  const train::RunData source = open_data(c, data);
  train::TrainState state(c, threads);
  state.initialise();
  const int64_t rows = c.train.batch_size / c.train.grad_accum;
  double step = 0;
  for (int64_t i = 0; i <= kTimedSteps; ++i) {
    std::vector<data::Batch> parts;
    for (int64_t first = 0; first < c.train.batch_size; first += rows)
      parts.push_back(source.batches->training_batch(i, c.train.batch_size, first, rows));
    const auto start = Clock::now();
    state.accumulate(parts);
    state.apply(i);
    if (i > 0) step += std::chrono::duration<double>(Clock::now() - start).count() / kTimedSteps;
  }
  const double window = step * kForwardShare / static_cast<double>(c.train.batch_size);
  int64_t windows = 0;
  for (const data::Batch& b : source.batches->validation_batches(rows, 0)) windows += b.rows;
  if (c.train.eval_every) windows += c.train.steps / c.train.eval_every * std::min(kSampleWindows, windows);
  if (c.train.gain_every && c.model.residual != ops::ResidualKind::plain) windows += c.train.steps / c.train.gain_every;
  return step * static_cast<double>(c.train.steps) + window * static_cast<double>(windows);
}

const RunSpec& first_of(const std::vector<RunSpec>& runs, size_t variant) {
  return *std::find_if(runs.begin(), runs.end(), [&](const RunSpec& r) { return r.variant == variant; });
}

}  // namespace

Sharing share_machine(std::vector<size_t> plans, int threads, size_t memory) {
  std::sort(plans.rbegin(), plans.rend());
  Sharing s{0, threads};
  size_t sum = 0;
  for (const size_t p : plans) {
    if (s.side_by_side == threads || (s.side_by_side > 0 && sum + p > memory)) break;
    sum += p;
    ++s.side_by_side;
  }
  s.side_by_side = std::max(1, s.side_by_side);
  s.threads_each = std::max(1, threads / s.side_by_side);
  return s;
}

std::vector<size_t> planned_bytes(const Study& study, const std::vector<RunSpec>& runs, int threads) {
  std::vector<size_t> out;
  for (size_t v = 0; v < study.variants.size(); ++v) {
    const model::MemoryPlan plan = train::plan_run(first_of(runs, v).config, threads);
    model::require_fits(plan);
    out.push_back(plan.total());
  }
  return out;
}

std::vector<double> measured_seconds(const Study& study, const std::vector<RunSpec>& runs, int threads) {
  std::vector<double> out;
  for (size_t v = 0; v < study.variants.size(); ++v)
    out.push_back(run_seconds(first_of(runs, v).config, study.data, threads));
  return out;
}

void require_data(const Study& study, const std::vector<RunSpec>& runs) {
  std::set<int64_t> lengths;
  for (const RunSpec& r : runs)
    if (lengths.insert(r.config.train.seq_len).second) open_data(r.config, study.data);
}

void require_same_settings(const Study& study, const std::vector<RunSpec>& runs) {
  for (const RunSpec& r : runs) {
    if (state_of(r.directory) == RunState::absent) continue;
    const json was = without_type(train::run_config_from_json(io::read_json(r.directory + "/config.json"))),
               now = without_type(r.config);
    for (const auto& [key, value] : now.items())
      if (!was.contains(key) || was[key] != value) refuse(r, key, was.value(key, json()), value);
    if (!io::exists(r.directory + "/run.json")) continue;
    const json data = io::read_json(r.directory + "/run.json").value("data", json());
    if (data != json(absolute_data(study))) refuse(r, "data", data, absolute_data(study));
  }
}

std::vector<std::string> train_arguments(const std::string& program, const Study& study, const RunSpec& run,
                                         int threads) {
  io::create_directories(fs::path(run.directory).parent_path().string());
  const std::string file = run.directory + ".json";
  io::write_json(file, run.settings);
  std::vector<std::string> arguments = {
      program, "train", "--config", file, "--out", run.directory, "--threads", std::to_string(threads), "--quiet"};
  for (const std::string& d : absolute_data(study)) arguments.insert(arguments.end(), {"--data", d});
  if (state_of(run.directory) == RunState::started) arguments.push_back("--resume");
  return arguments;
}

}  // namespace birkhoff::lab
