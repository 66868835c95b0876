// How far a study is, on stderr: a line that is rewritten on a terminal, plain lines otherwise, with the time left.
#pragma once
#include <chrono>
#include <string>
#include <vector>

#include "lab/compare/study.h"
#include "train/status_line.h"

namespace birkhoff::lab {

// The step of the last whole record of metrics.jsonl; 0 when there is none.
int64_t last_step(const std::string& metrics_path);

// Guesses what is left from what was seen. Times of one variant are alike; a variant never seen takes its share by
// model FLOPs.
class TimeLeft {
 public:
  explicit TimeLeft(const std::vector<RunSpec>& runs);
  // Run i took `seconds` for the last `share` (0..1] of its steps.
  void saw(size_t i, double seconds, double share);
  // Seconds until all is done, given the share of each run that is left and how many run at a time; negative: nothing
  // was seen yet.
  double left(const std::vector<double>& remaining, int side_by_side) const;

 private:
  const std::vector<RunSpec>& runs_;
  std::vector<double> flops_;            // of each run
  std::vector<double> seconds_, share_;  // by variant, summed over what was seen
};

class StudyProgress {
 public:
  StudyProgress(bool terminal, bool quiet) : line_(terminal, quiet) {}
  void message(const std::string& text) { line_.message(text); }
  // At most every half second on a terminal, every fifteen otherwise.
  void show(size_t done, size_t total, const std::vector<std::string>& running, double seconds_left);

 private:
  train::StatusLine line_;
  std::chrono::steady_clock::time_point last_shown_ = std::chrono::steady_clock::now();
};

}  // namespace birkhoff::lab
