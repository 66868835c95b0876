// Timing of training steps on synthetic tokens, with the machine's peaks measured in the same run.
#pragma once
#include <nlohmann/json_fwd.hpp>

#include "train/progress.h"
#include "train/train_config.h"

namespace birkhoff::train {

struct MachinePeaks {
  double gemm_gflops = 0;  // best bf16 (or fp32 with --set dtype=fp32) rate over a few large products, all threads
  double read_gbs = 0;     // ops::read_bandwidth
};
MachinePeaks measure_peaks(const Exec& exec, DType dtype);

// The record of interfaces: tokens_per_s, step_ms {min, median, max}, phase_ms, gemm_share, model_flops, peak_gflops,
// read_gbs, rss_mib, planned_mib, cpu, isa. kWarmSteps unmeasured steps come first; progress counts these and the
// measured ones.
inline constexpr int64_t kWarmSteps = 3;
nlohmann::json bench_train(const RunConfig& config, int64_t steps, int threads, Progress& progress);

}  // namespace birkhoff::train
