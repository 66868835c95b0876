// What long work says while it goes on: a bar on a terminal, plain lines otherwise. Writes to stderr.
#pragma once
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace birkhoff::train {

class Progress {
 public:
  // unit: what is counted, "step".
  Progress(int64_t total, bool terminal, bool quiet, std::string unit = "step");
  ~Progress();
  // What came before was preparation, and `done` of the total were done earlier: the time left is reckoned from here.
  void begin(int64_t done = 0) {
    last_call_ = std::chrono::steady_clock::now();
    last_done_ = done;
  }
  // `done` of the total, what else there is to say, and the time left. Rare enough for a reader, whenever it is called.
  void show(int64_t done, const std::string& details = "");
  // show() with the figures of a training step.
  void step(int64_t done, double loss, double tokens_per_s, std::optional<double> val_loss);
  void message(const std::string& text);

 private:
  void clear_line();
  int64_t total_;
  bool terminal_, quiet_, line_open_ = false;
  std::string unit_;
  std::optional<double> last_val_;
  std::chrono::steady_clock::time_point last_shown_{};
  double seconds_each_ = 0;
  int64_t last_done_ = 0;
  std::chrono::steady_clock::time_point last_call_ = std::chrono::steady_clock::now();
};

// "1:02:03" or "4:05".
std::string format_duration(double seconds);

}  // namespace birkhoff::train
