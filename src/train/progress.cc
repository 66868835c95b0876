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

Progress::Progress(int64_t total, bool terminal, bool quiet, std::string unit)
    : total_(total), terminal_(terminal), quiet_(quiet), unit_(std::move(unit)) {}
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
  if (val_loss) last_val_ = val_loss;
  char text[96], val[32] = "";
  if (last_val_) std::snprintf(val, sizeof val, "  val %.4f", *last_val_);
  std::snprintf(text, sizeof text, "loss %.4f%s  %.0f %s", loss, val, tokens_per_s, terminal_ ? "tok/s" : "tokens/s");
  show(done, text);
}

void Progress::show(int64_t done, const std::string& details) {
  if (quiet_) return;
  const auto now = std::chrono::steady_clock::now();
  const double took = std::chrono::duration<double>(now - last_call_).count() /
                      static_cast<double>(std::max<int64_t>(1, done - last_done_));
  last_call_ = now;
  last_done_ = done;
  seconds_each_ = seconds_each_ == 0 ? took : 0.95 * seconds_each_ + 0.05 * took;
  const double since = std::chrono::duration<double>(now - last_shown_).count();
  if (done < total_ && since < (terminal_ ? kTerminalInterval : kPlainInterval)) return;
  last_shown_ = now;
  const std::string said = (details.empty() ? "" : details + "  ") +
                           format_duration(seconds_each_ * static_cast<double>(total_ - done)) + " left";
  if (!terminal_) {
    std::fprintf(stderr, "%s %lld/%lld  %s\n", unit_.c_str(), static_cast<long long>(done),
                 static_cast<long long>(total_), said.c_str());
    return;
  }
  const int filled = static_cast<int>(kBarWidth * done / std::max<int64_t>(1, total_));
  std::string bar(static_cast<size_t>(filled), '#');
  bar.resize(kBarWidth, '.');
  std::fprintf(stderr, "\r\033[K[%s] %lld/%lld  %s", bar.c_str(), static_cast<long long>(done),
               static_cast<long long>(total_), said.c_str());
  std::fflush(stderr);
  line_open_ = true;
}

}  // namespace birkhoff::train
