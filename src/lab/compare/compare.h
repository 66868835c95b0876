// A study from its first run to its report.
#pragma once
#include <atomic>
#include <string>
#include <vector>

#include "lab/compare/study.h"

namespace birkhoff::lab {

struct CompareOptions {
  Study study;
  std::string out;                     // holds runs/VARIANT/seed-K, results.json, report.html
  std::vector<std::string> overrides;  // key=value, over the settings of all variants
  int threads = 1;
  std::string command_line;
  bool terminal = false;  // stderr is one
  bool quiet = false;
};

// What run_study found; the caller prints it.
struct CompareOutcome {
  int exit_code = 0;  // 1 when a run failed, 130 when `stop` was raised: then there are no results
  nlohmann::json results, summary;
};

// Trains what is not finished, each run by a process of this program with --quiet, side by side where cores and memory
// allow; a run that fails is said and the others go on. Writes results.json and report.html. Throws Error before
// anything is started: settings that train refuses, runs that were made with other settings, a model larger than the
// machine, a directory in use.
CompareOutcome run_study(const CompareOptions& options, const std::atomic<bool>& stop);

// What run_study would do, as text: every run with its state, planned memory and the time expected from a few measured
// steps.
std::string describe_plan(const CompareOptions& options);
// The same as {runs: [{variant, seed, directory, state, steps, memory_bytes, seconds}], side_by_side, threads_each,
// seconds}.
nlohmann::json plan_of(const CompareOptions& options);

// Report and summary from results.json alone; writes DIR/report.html.
CompareOutcome redraw(const std::string& results_path, const std::string& out);

}  // namespace birkhoff::lab
