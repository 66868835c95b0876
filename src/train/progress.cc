#include "train/progress.h"

#include <algorithm>
#include <cstdio>

namespace birkhoff::train {
namespace {
constexpr double kTerminalInterval = 0.1, kPlainInterval = 5.0;  // seconds
constexpr int kBarWidth = 24, kLeastBarWidth = 6;

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
    : total_(total), line_(terminal, quiet), unit_(std::move(unit)) {}

void Progress::step(int64_t done, double loss, int64_t tokens, double seconds, std::optional<double> val_loss) {
  if (line_.quiet()) return;
  if (val_loss) last_val_ = val_loss;
  tokens_ += static_cast<double>(tokens);
  seconds_ += seconds;
  char text[96], val[32] = "";
  if (last_val_) std::snprintf(val, sizeof val, "  val %.4f", *last_val_);
  std::snprintf(text, sizeof text, "loss %.4f%s  %.0f %s", loss, val, seconds_ > 0 ? tokens_ / seconds_ : 0,
                line_.terminal() ? "tok/s" : "tokens/s");
  if (show(done, text)) tokens_ = seconds_ = 0;
}

std::string progress_line(const std::string& count, const std::string& said, double share, int columns) {
  const int room = columns - 1;  // a full line would wrap
  const int words = static_cast<int>(count.size() + said.size()) + 2, width = std::min(kBarWidth, room - words - 3);
  std::string line;
  if (width >= kLeastBarWidth) {
    const int filled = static_cast<int>(width * share);
    line = "[" + std::string(static_cast<size_t>(filled), '#') + std::string(static_cast<size_t>(width - filled), '.') +
           "] ";
  }
  return (line + count + "  " + said).substr(0, static_cast<size_t>(std::max(room, 0)));
}

bool Progress::show(int64_t done, const std::string& details) {
  if (line_.quiet()) return false;
  const auto now = std::chrono::steady_clock::now();
  const double took = std::chrono::duration<double>(now - last_call_).count() /
                      static_cast<double>(std::max<int64_t>(1, done - last_done_));
  last_call_ = now;
  last_done_ = done;
  seconds_each_ = seconds_each_ == 0 ? took : 0.95 * seconds_each_ + 0.05 * took;
  const double since = std::chrono::duration<double>(now - last_shown_).count();
  if (done < total_ && since < (line_.terminal() ? kTerminalInterval : kPlainInterval)) return false;
  last_shown_ = now;
  const std::string said = (details.empty() ? "" : details + "  ") +
                           format_duration(seconds_each_ * static_cast<double>(total_ - done)) + " left";
  const std::string count = std::to_string(done) + "/" + std::to_string(total_);
  const double share = static_cast<double>(done) / static_cast<double>(std::max<int64_t>(1, total_));
  line_.show(line_.terminal() ? progress_line(count, said, share, terminal_columns())
                              : unit_ + " " + count + "  " + said);
  return true;
}

}  // namespace birkhoff::train
