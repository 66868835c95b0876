#include "lab/compare/study_progress.h"

#include <algorithm>
#include <cstdio>
#include <fstream>

#include "model/config/inventory.h"
#include "train/progress.h"

namespace birkhoff::lab {
namespace {
constexpr double kTerminalInterval = 0.5, kPlainInterval = 15;  // seconds
constexpr std::streamoff kTail = 1 << 20;                       // more than one record of any model
}  // namespace

int64_t last_step(const std::string& metrics_path) {
  std::ifstream in(metrics_path, std::ios::binary | std::ios::ate);
  if (!in) return 0;
  const std::streamoff size = in.tellg(), from = std::max<std::streamoff>(0, size - kTail);
  std::string tail(static_cast<size_t>(size - from), '\0');
  in.seekg(from);
  in.read(tail.data(), static_cast<std::streamsize>(tail.size()));
  const size_t end = tail.rfind('\n');
  if (end == std::string::npos || end == 0) return 0;
  const size_t before = tail.rfind('\n', end - 1), begin = before == std::string::npos ? 0 : before + 1;
  const nlohmann::json r = nlohmann::json::parse(tail.substr(begin, end - begin), nullptr, false);
  return r.is_object() && r.contains("step") && r["step"].is_number_integer() ? r["step"].get<int64_t>() : 0;
}

TimeLeft::TimeLeft(const std::vector<RunSpec>& runs) : runs_(runs) {
  size_t variants = 0;
  for (const RunSpec& r : runs) {
    const train::TrainConfig& t = r.config.train;
    flops_.push_back(model::model_flops(r.config.model, t.batch_size, t.seq_len) * static_cast<double>(t.steps));
    variants = std::max(variants, r.variant + 1);
  }
  seconds_.resize(variants);
  share_.resize(variants);
}

void TimeLeft::saw(size_t i, double seconds, double share) {
  seconds_[runs_[i].variant] += seconds;
  share_[runs_[i].variant] += share;
}

double TimeLeft::left(const std::vector<double>& remaining, int side_by_side) const {
  double seen_seconds = 0, seen_flops = 0, work = 0, longest = 0;
  for (size_t v = 0; v < seconds_.size(); ++v) {
    const auto first = std::find_if(runs_.begin(), runs_.end(), [&](const RunSpec& r) { return r.variant == v; });
    seen_seconds += seconds_[v];
    seen_flops += share_[v] * flops_[static_cast<size_t>(first - runs_.begin())];
  }
  if (seen_flops <= 0) return -1;
  for (size_t i = 0; i < runs_.size(); ++i) {
    const size_t v = runs_[i].variant;
    const double whole = share_[v] > 0 ? seconds_[v] / share_[v] : flops_[i] * seen_seconds / seen_flops;
    work += whole * remaining[i];
    longest = std::max(longest, whole * remaining[i]);
  }
  return std::max(longest, work / side_by_side);
}

StudyProgress::StudyProgress(bool terminal, bool quiet) : terminal_(terminal), quiet_(quiet) {}
StudyProgress::~StudyProgress() { clear_line(); }

void StudyProgress::clear_line() {
  if (line_open_) std::fprintf(stderr, "\r\033[K");
  line_open_ = false;
}

void StudyProgress::message(const std::string& text) {
  clear_line();
  if (!quiet_) std::fprintf(stderr, "birkhoff: %s\n", text.c_str());
}

void StudyProgress::show(size_t done, size_t total, const std::vector<std::string>& running, double seconds_left) {
  const auto now = std::chrono::steady_clock::now();
  if (quiet_ ||
      std::chrono::duration<double>(now - last_shown_).count() < (terminal_ ? kTerminalInterval : kPlainInterval))
    return;
  last_shown_ = now;
  std::string line = std::to_string(done) + "/" + std::to_string(total) + " runs";
  for (const std::string& r : running) line += "  " + r;
  if (seconds_left >= 0) line += "  " + train::format_duration(seconds_left) + " left";
  if (terminal_) line = line.substr(0, static_cast<size_t>(std::max(0, train::terminal_columns() - 1)));
  std::fprintf(stderr, terminal_ ? "\r\033[K%s" : "%s\n", line.c_str());
  std::fflush(stderr);
  line_open_ = terminal_;
}

}  // namespace birkhoff::lab
