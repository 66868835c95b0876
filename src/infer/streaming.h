// What to expect of a model whose weights stay in files that memory cannot hold (EngineOptions::stream).
#pragma once
#include <chrono>
#include <cstdint>
#include <string>

#include "core/exec.h"
#include "model/traffic.h"

namespace birkhoff::infer {

struct StreamedSpeed {
  model::WeightTraffic weights;
  double memory = 0;                                               // bytes of them that can stay in memory
  double disk_rate = 0;                                            // bytes a second, 0: it could not be measured
  double disk_bytes() const { return weights.from_disk(memory); }  // of a decoded token
  std::string said() const;                                        // a sentence
};

// What tokens took, and what they had the disk read: intervals that add up.
class StreamMeter {
 public:
  StreamMeter() { begin(); }
  void begin();              // an interval
  void add(int64_t tokens);  // what the interval was for; the next begins
  int64_t tokens() const { return tokens_; }
  double tokens_per_s() const { return tokens_ > 0 && seconds_ > 0 ? static_cast<double>(tokens_) / seconds_ : 0; }
  double disk_bytes_per_token() const { return tokens_ > 0 ? bytes_ / static_cast<double>(tokens_) : 0; }

 private:
  std::chrono::steady_clock::time_point start_;
  int64_t start_bytes_ = 0, tokens_ = 0;
  double seconds_ = 0, bytes_ = 0;
};

// Bytes a second that the disk under the file gives to all threads of exec together, read past the page cache: up to
// 256 MiB of it, for up to 0.4 s. 0: the file cannot be read.
double disk_read_rate(const Exec& exec, const std::string& path);

}  // namespace birkhoff::infer
