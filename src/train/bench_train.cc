#include "train/bench_train.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/cpu.h"
#include "core/process.h"
#include "core/rng.h"
#include "model/config/inventory.h"
#include "ops/gemm/gemm.h"
#include "ops/rows/elementwise.h"
#include "ops/rows/read_bandwidth.h"
#include "train/train_state.h"

namespace birkhoff::train {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

// Tokens with Zipf-like frequencies, half of them determined by the one before: a loss that can fall, experts that
// specialise.
data::Batch synthetic_batch(const RunConfig& c, int64_t step) {
  const int64_t S = c.train.seq_len, rows = c.train.batch_size / c.train.grad_accum, V = c.model.vocab_size;
  data::Batch b;
  b.rows = rows;
  b.seq_len = S;
  const Rng rng(static_cast<uint64_t>(c.train.seed), static_cast<uint64_t>(step));
  for (int64_t r = 0; r < rows; ++r) {
    int64_t previous = 0;
    b.segment_start.push_back(static_cast<int32_t>(r * S));
    b.sequence_start.push_back(static_cast<int32_t>(r * S));
    for (int64_t s = 0; s <= S; ++s) {
      const auto i = static_cast<uint64_t>(2 * (r * (S + 1) + s));
      const auto zipf = static_cast<int64_t>(std::exp(rng.uniform(i) * std::log(static_cast<double>(V)))) - 1;
      const int64_t id = s > 0 && rng.uniform(i + 1) < 0.5 ? (previous * 31 + 7) % V : std::min(zipf, V - 1);
      if (s > 0) b.labels.push_back(static_cast<int32_t>(id));
      if (s < S) {
        b.ids.push_back(static_cast<int32_t>(id));
        b.position.push_back(static_cast<int32_t>(s));
        b.first_key.push_back(static_cast<int32_t>(r * S));
      }
      previous = id;
    }
  }
  return b;
}

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

}  // namespace

MachinePeaks measure_peaks(const Exec& exec, DType dtype) {
  MachinePeaks p;
  const std::vector<std::array<int64_t, 3>> shapes = {{2048, 2048, 2048}, {4096, 1024, 1024}, {4096, 512, 512}};
  for (const auto& [m, n, k] : shapes) {
    Arena memory(static_cast<size_t>((m * k + n * k + m * n) * 4 + ops::Packed::bytes(dtype, k, n)) + (1 << 20));
    Mat a = memory.mat(dtype, m, k), w = memory.mat(f32_t, n, k), c = memory.mat(dtype, m, n);
    ops::zero(exec, a);
    ops::zero(exec, w);
    const ops::Packed b = ops::Packed::take(memory, dtype, k, n);
    ops::pack_transposed(exec, w, b);
    for (int i = 0; i < 12; ++i) {
      const auto t = Clock::now();
      ops::gemm(exec, a, b, c);
      p.gemm_gflops = std::max(p.gemm_gflops, 2e-9 * static_cast<double>(m * n * k) / seconds_since(t));
    }
  }
  p.read_gbs = 1e-9 * ops::read_bandwidth(exec);
  return p;
}

nlohmann::json bench_train(const RunConfig& c, int64_t steps, int threads, Progress& progress) {
  progress.message("measuring the peaks of this machine, then " + std::to_string(kWarmSteps) + " steps to warm up");
  const MachinePeaks peaks = [&] {
    const Exec exec(threads);
    return measure_peaks(exec, c.train.dtype);
  }();
  TrainState state(c, threads);
  state.initialise();
  progress.begin();
  std::vector<double> ms, forward, backward, optimizer;
  double gemm = 0, total = 0;
  std::array<double, static_cast<size_t>(Work::count)> work{};
  double loss = 0;
  for (int64_t i = 0; i < kWarmSteps + steps; ++i) {
    std::vector<data::Batch> parts;
    for (int64_t a = 0; a < c.train.grad_accum; ++a) parts.push_back(synthetic_batch(c, i * c.train.grad_accum + a));
    if (i == kWarmSteps) {
      progress.message("warmed up; measuring " + std::to_string(steps) + (steps == 1 ? " step" : " steps"));
      reset_peak_rss();  // the peak of the measured steps alone
    }
    state.exec().seconds().fill(0);
    const auto t = Clock::now();
    state.accumulate(parts);
    const StepOutcome s = state.apply(i);
    const double took = seconds_since(t);
    loss = s.loss;
    progress.show(i + 1);
    if (i < kWarmSteps) continue;
    ms.push_back(1e3 * took);
    forward.push_back(s.forward_ms);
    backward.push_back(s.backward_ms);
    optimizer.push_back(s.optimizer_ms);
    total += took;
    gemm += state.exec().seconds()[static_cast<size_t>(Work::gemm)];
    for (size_t w = 0; w < work.size(); ++w) work[w] += state.exec().seconds()[w];
  }
  const double tokens = static_cast<double>(c.train.batch_size * c.train.seq_len), mid = median(ms);
  nlohmann::json shares;
  for (size_t w = 0; w < work.size(); ++w) shares[work_name(static_cast<Work>(w))] = work[w] / total;
  return {
      {"tokens_per_s", tokens / mid * 1e3},
      {"step_ms",
       {{"min", *std::min_element(ms.begin(), ms.end())},
        {"median", mid},
        {"max", *std::max_element(ms.begin(), ms.end())}}},
      {"phase_ms", {{"forward", median(forward)}, {"backward", median(backward)}, {"optimizer", median(optimizer)}}},
      {"gemm_share", gemm / total},
      {"work_share", shares},
      {"model_flops", model::model_flops(c.model, c.train.batch_size, c.train.seq_len)},
      {"peak_gflops", peaks.gemm_gflops},
      {"read_gbs", peaks.read_gbs},
      {"rss_mib", peak_rss_mib()},
      {"planned_mib", state.plan().total() >> 20},
      {"steps", steps},
      {"last_loss", loss},
      {"threads", threads},
      {"cpu", cpu_model()},
      {"isa", isa_name(active_isa())}};
}

}  // namespace birkhoff::train
