#include "train/progress.h"

#include <algorithm>
#include <cstdio>

namespace birkhoff::train {
namespace {
constexpr double kTerminalInterval = 0.1, kPlainInterval = 5.0;  // seconds
constexpr int kBarWidth = 24;
}  // namespace

std::string format_duration(double seconds) {
  const auto s = static_cast<long long>(std::max(0.0, seconds) + 0.5);
  char text[48];
  if (s >= 3600)
    std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
  else
    std::snprintf(text, sizeof text, "%lld:%02lld", s / 60, s % 60);
  return text;
}

Progress::Progress(int64_t total_steps, bool terminal, bool quiet) : total_(total_steps), terminal_(terminal), quiet_(quiet) {}
Progress::~Progress() { clear_line(); }

void Progress::clear_line() {
  if (line_open_) std::fprintf(stderr, "\r\033[K");
  line_open_ = false;
}

void Progress::message(const std::string& text) {
  clear_line();
  if (!quiet_) std::fprintf(stderr, "birkhoff: %s\n", text.c_str());
}

void Progress::step(int64_t done, double loss, double tokens_per_s, std::optional<double> val_loss) {
  if (quiet_) return;
  const auto now = std::chrono::steady_clock::now();
  const double took = std::chrono::duration<double>(now - last_step_).count();
  last_step_ = now;
  seconds_per_step_ = seconds_per_step_ == 0 ? took : 0.95 * seconds_per_step_ + 0.05 * took;
  if (val_loss) last_val_ = val_loss;
  const double since = std::chrono::duration<double>(now - last_shown_).count();
  if (done < total_ && since < (terminal_ ? kTerminalInterval : kPlainInterval)) return;
  last_shown_ = now;
  char val[32] = "";
  if (last_val_) std::snprintf(val, sizeof val, "  val %.4f", *last_val_);
  const std::string left = format_duration(seconds_per_step_ * static_cast<double>(total_ - done));
  if (!terminal_) {
    std::fprintf(stderr, "step %lld/%lld  loss %.4f%s  %.0f tokens/s  %s left\n", static_cast<long long>(done), static_cast<long long>(total_), loss, val, tokens_per_s, left.c_str());
    return;
  }
  const int filled = static_cast<int>(kBarWidth * done / std::max<int64_t>(1, total_));
  std::string bar(static_cast<size_t>(filled), '#');
  bar.resize(kBarWidth, '.');
  std::fprintf(stderr, "\r\033[K[%s] %lld/%lld  loss %.4f%s  %.0f tok/s  %s left", bar.c_str(), static_cast<long long>(done), static_cast<long long>(total_), loss, val, tokens_per_s,
               left.c_str());
  std::fflush(stderr);
  line_open_ = true;
}

}  // namespace birkhoff::train
