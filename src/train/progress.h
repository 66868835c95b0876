// What a training run says while it works: a bar on a terminal, plain lines otherwise. Writes to stderr.
#pragma once
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace birkhoff::train {

class Progress {
 public:
  Progress(int64_t total_steps, bool terminal, bool quiet);
  ~Progress();
  void step(int64_t done, double loss, double tokens_per_s, std::optional<double> val_loss);
  void message(const std::string& text);

 private:
  void clear_line();
  int64_t total_;
  bool terminal_, quiet_, line_open_ = false;
  std::optional<double> last_val_;
  std::chrono::steady_clock::time_point last_shown_{};
  double seconds_per_step_ = 0;
  std::chrono::steady_clock::time_point last_step_ = std::chrono::steady_clock::now();
};

// "1:02:03" or "4:05".
std::string format_duration(double seconds);

}  // namespace birkhoff::train
