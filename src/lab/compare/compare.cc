#include "lab/compare/compare.h"

#include <cstdio>
#include <list>
#include <thread>

#include "core/error.h"
#include "core/process.h"
#include "io/atomic_file.h"
#include "io/json_file.h"
#include "io/user_files.h"
#include "lab/compare/child_process.h"
#include "lab/compare/results.h"
#include "lab/compare/study_page.h"
#include "lab/compare/study_progress.h"
#include "lab/compare/summary.h"
#include "lab/plan/schedule.h"
#include "model/memory_plan.h"
#include "report/report.h"
#include "train/progress.h"

namespace birkhoff::lab {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr auto kPoll = std::chrono::milliseconds(100);
constexpr auto kLook = std::chrono::seconds(2);  // between looks at how far runs are

double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

std::string name_of(const Study& study, const RunSpec& r) {
  return study.variants[r.variant].name + "/seed-" + std::to_string(r.seed);
}

std::vector<size_t> bytes_of_runs(const std::vector<size_t>& by_variant, const std::vector<RunSpec>& runs) {
  std::vector<size_t> out;
  for (const RunSpec& r : runs) out.push_back(by_variant[r.variant]);
  return out;
}

// The runs that are not finished, in their turns.
class Turns {
 public:
  Turns(const CompareOptions& o, const std::vector<RunSpec>& runs, Sharing sharing)
      : options_(o),
        runs_(runs),
        sharing_(sharing),
        program_(own_program()),
        progress_(o.terminal, o.quiet),
        time_(runs),
        remaining_(runs.size(), 1.0) {}
  // False when `stop` was raised: the running ones were stopped and have saved.
  bool finish_all(const std::atomic<bool>& stop);
  size_t failed() const { return failed_; }
  size_t done() const { return done_; }

 private:
  struct Running {
    size_t run;
    ChildProcess process;
    Clock::time_point began = Clock::now();
    int64_t first_step = 0, step = 0;
  };
  void start(size_t i);
  void ended(const Running& r, int code);
  void look();
  double share(const RunSpec& r, int64_t steps) const {
    return static_cast<double>(steps) / static_cast<double>(std::max<int64_t>(1, r.config.train.steps));
  }

  const CompareOptions& options_;
  const std::vector<RunSpec>& runs_;
  Sharing sharing_;
  std::string program_;
  StudyProgress progress_;
  TimeLeft time_;
  std::vector<double> remaining_;
  std::list<Running> running_;
  Clock::time_point looked_{};
  size_t done_ = 0, failed_ = 0;
};

void Turns::start(size_t i) {
  const RunSpec& r = runs_[i];
  const auto arguments = train_arguments(program_, options_.study, r, sharing_.threads_each);
  running_.push_back({i, ChildProcess(arguments, r.directory + ".log")});
  running_.back().first_step = running_.back().step = saved_step(r.directory);
}

void Turns::ended(const Running& r, int code) {
  const RunSpec& spec = runs_[r.run];
  const std::string name = name_of(options_.study, spec);
  remaining_[r.run] = 0;
  if (code == 0 && state_of(spec.directory) == RunState::done) {
    ++done_;
    time_.saw(r.run, seconds_since(r.began), std::max(1e-3, 1 - share(spec, r.first_step)));
    const json value = io::read_json(spec.directory + "/run.json")["final_val_loss"];  // null where it is not finite
    char loss[48] = "is not finite";
    if (value.is_number()) std::snprintf(loss, sizeof loss, "%.4f", value.get<double>());
    progress_.message(name + ": done, validation loss " + loss + " (" + std::to_string(done_ + failed_) + "/" +
                      std::to_string(runs_.size()) + ")");
    return;
  }
  ++failed_;
  const std::string said = last_message(spec.directory + ".log");
  progress_.message(name + ": failed with exit code " + std::to_string(code) + (said.empty() ? "" : ": " + said) +
                    "; see " + spec.directory + ".log");
}

// Reads how far the running ones are and says it.
void Turns::look() {
  if (Clock::now() - looked_ < kLook) return;
  looked_ = Clock::now();
  TimeLeft time = time_;
  std::vector<std::string> lines;
  for (Running& r : running_) {
    const RunSpec& spec = runs_[r.run];
    if (const int64_t step = last_step(spec.directory + "/metrics.jsonl"); step >= r.first_step) r.step = step;
    if (r.step > r.first_step) time.saw(r.run, seconds_since(r.began), share(spec, r.step - r.first_step));
    remaining_[r.run] = 1 - share(spec, r.step);
    lines.push_back(name_of(options_.study, spec) + " " + std::to_string(r.step) + "/" +
                    std::to_string(spec.config.train.steps));
  }
  progress_.show(done_ + failed_, runs_.size(), lines, time.left(remaining_, sharing_.side_by_side));
}

bool Turns::finish_all(const std::atomic<bool>& stop) {
  std::list<size_t> waiting;
  for (size_t i = 0; i < runs_.size(); ++i) {
    if (state_of(runs_[i].directory) != RunState::done) {
      waiting.push_back(i);
      continue;
    }
    ++done_;
    remaining_[i] = 0;
    time_.saw(i, io::read_json(runs_[i].directory + "/run.json")["position"].value("train_seconds", 0.0), 1);
  }
  if (done_)
    progress_.message(std::to_string(done_) + " of " + std::to_string(runs_.size()) + " runs are already finished");
  while (!stop && (!waiting.empty() || !running_.empty())) {
    while (!waiting.empty() && running_.size() < static_cast<size_t>(sharing_.side_by_side)) {
      start(waiting.front());
      waiting.pop_front();
    }
    for (auto r = running_.begin(); r != running_.end();) {
      const auto code = r->process.exit_code();
      if (code) ended(*r, *code);
      r = code ? running_.erase(r) : std::next(r);
    }
    look();
    std::this_thread::sleep_for(kPoll);
  }
  if (!stop) return true;
  progress_.message("stopping; " + std::to_string(running_.size()) + " running runs save first");
  for (Running& r : running_) r.process.stop();
  for (Running& r : running_)
    while (!r.process.exit_code()) std::this_thread::sleep_for(kPoll);
  return false;
}

void write_page(const json& results, const json& summary, const std::string& out) {
  report::write_study(study_page(results, summary), out + "/report.html");
}

// Everything that a run needs was checked.
std::vector<RunSpec> checked_runs(const CompareOptions& o) {
  if (o.study.data.empty())
    throw Error("compare", "no data", "give --data PATH, or \"data\" in the study", ExitCode::usage);
  std::vector<RunSpec> runs = runs_of(o.study, o.out, o.overrides);
  require_same_settings(o.study, runs);
  require_data(o.study, runs);
  return runs;
}

// Results outlive their runs, and a new study must not take their place.
void require_no_results(const std::string& out) {
  if (io::exists(out + "/runs")) return;
  for (const char* name : {"results.json", "report.html"})
    if (io::exists(out + "/" + name))
      throw Error("compare", out + ": already holds " + name + ", and no runs that it could be of",
                  "choose another --out, or move it away");
}

}  // namespace

CompareOutcome run_study(const CompareOptions& o, const std::atomic<bool>& stop) {
  require_no_results(o.out);
  const std::vector<RunSpec> runs = checked_runs(o);
  const auto plans = planned_bytes(o.study, runs, 1);
  const Sharing sharing = share_machine(bytes_of_runs(plans, runs), o.threads, machine_memory_bytes());
  io::create_directories(o.out);
  const io::DirectoryLock lock(o.out);
  Turns turns(o, runs, sharing);
  if (!turns.finish_all(stop)) {
    std::fprintf(stderr, "birkhoff: interrupted with %zu of %zu runs finished. Go on with the same command: %s\n",
                 turns.done(), runs.size(), o.command_line.c_str());
    return {static_cast<int>(ExitCode::interrupted), {}, {}};
  }
  CompareOutcome out;
  out.results = collect_results(o.study, runs, {o.command_line, sharing.side_by_side});
  out.summary = summarise(out.results);
  bool failed = turns.failed() > 0;
  for (const json& v : out.summary["variants"])
    failed |= v["failed"].get<int64_t>() > 0;  // a finished run may be damaged
  out.exit_code = failed ? static_cast<int>(ExitCode::failed) : 0;
  out.results["summary"] = out.summary;
  io::write_file_atomic(o.out + "/results.json", out.results.dump() + "\n");
  write_page(out.results, out.summary, o.out);
  if (!o.quiet) std::fprintf(stderr, "birkhoff: report: %s/report.html\n", o.out.c_str());
  return out;
}

json plan_of(const CompareOptions& o) {
  const std::vector<RunSpec> runs = checked_runs(o);
  const auto plans = planned_bytes(o.study, runs, 1);
  const Sharing sharing = share_machine(bytes_of_runs(plans, runs), o.threads, machine_memory_bytes());
  const std::vector<double> seconds = measured_seconds(o.study, runs, sharing.threads_each);
  json list = json::array();
  double work = 0, longest = 0;
  for (const RunSpec& r : runs) {
    const RunState state = state_of(r.directory);
    const int64_t step = state == RunState::started ? saved_step(r.directory) : 0;
    const double left =
        state == RunState::done
            ? 0
            : seconds[r.variant] *
                  (1 - static_cast<double>(step) / static_cast<double>(std::max<int64_t>(1, r.config.train.steps)));
    work += left;
    longest = std::max(longest, left);
    list.push_back({{"variant", o.study.variants[r.variant].name},
                    {"seed", r.seed},
                    {"directory", r.directory},
                    {"state", state == RunState::done      ? "done"
                              : state == RunState::started ? "started"
                                                           : "new"},
                    {"step", step},
                    {"steps", r.config.train.steps},
                    {"memory_bytes", plans[r.variant]},
                    {"seconds", left}});
  }
  return {{"runs", list},
          {"side_by_side", sharing.side_by_side},
          {"threads_each", sharing.threads_each},
          {"seconds", std::max(longest, work / sharing.side_by_side)}};
}

std::string describe_plan(const CompareOptions& o) {
  const json plan = plan_of(o);
  std::string out;
  char line[400];
  size_t width = 3;
  for (const json& r : plan["runs"]) width = std::max(width, r["variant"].get<std::string>().size() + 8);
  std::snprintf(line, sizeof line, "%-*s  %-16s %8s %9s\n", static_cast<int>(width), "run", "state", "MiB", "time");
  out += line;
  for (const json& r : plan["runs"]) {
    const std::string state = r["state"] == "started" ? "at step " + r["step"].dump() : r["state"].get<std::string>();
    std::snprintf(line, sizeof line, "%-*s  %-16s %8zu %9s\n", static_cast<int>(width),
                  (r["variant"].get<std::string>() + "/seed-" + r["seed"].dump()).c_str(), state.c_str(),
                  r["memory_bytes"].get<size_t>() >> 20, train::format_duration(r["seconds"]).c_str());
    out += line;
  }
  std::snprintf(line, sizeof line,
                "%s in all: %d at a time, %d %s each; from two measured steps of each variant, alone on the machine\n",
                train::format_duration(plan["seconds"]).c_str(), plan["side_by_side"].get<int>(),
                plan["threads_each"].get<int>(), plan["threads_each"] == 1 ? "thread" : "threads");
  return out + line;
}

CompareOutcome redraw(const std::string& results_path, const std::string& out) {
  CompareOutcome o;
  o.results = read_results(results_path);
  io::create_directories(out);
  try {
    o.summary = summarise(o.results);
    write_page(o.results, o.summary, out);
  } catch (const json::exception& e) {
    throw Error("compare", results_path + ": " + e.what(), "it was edited; run the study again");
  }
  return o;
}

}  // namespace birkhoff::lab
