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
  // `done` of the total, what else there is to say, and the time left. Rare enough for a reader, whenever it is called:
  // true when it was shown.
  bool show(int64_t done, const std::string& details = "");
  // show() with the figures of a training step; the speed is that since it was last shown.
  void step(int64_t done, double loss, int64_t tokens, double seconds, std::optional<double> val_loss);
  void message(const std::string& text);

 private:
  void clear_line();
  int64_t total_;
  bool terminal_, quiet_, line_open_ = false;
  std::string unit_;
  std::optional<double> last_val_;
  std::chrono::steady_clock::time_point last_shown_{};
  double seconds_each_ = 0;
  double tokens_ = 0, seconds_ = 0;  // of the steps since the last line
  int64_t last_done_ = 0;
  std::chrono::steady_clock::time_point last_call_ = std::chrono::steady_clock::now();
};

// Of the terminal behind stderr; 80 where it does not say.
int terminal_columns();

// A bar, "done/total" and what is said, in fewer columns than a terminal has: the bar shrinks and goes, then text is
// cut. share: of the bar that is full.
std::string progress_line(const std::string& count, const std::string& said, double share, int columns);

// "1:02:03" or "4:05".
std::string format_duration(double seconds);

}  // namespace birkhoff::train
