#include "optim/optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/view.h"
#include "kernels/rows/optimizer.h"
#include "optim/muon.h"

namespace birkhoff::optim {
namespace {

constexpr int64_t kChunk = 1 << 16;  // elements of one task

template <class F>
void for_chunks(const Exec& exec, int64_t n, F&& f) {
  exec.parallel_for((n + kChunk - 1) / kChunk, [&](int64_t c) { f(c, c * kChunk, std::min(kChunk, n - c * kChunk)); });
}

void muon_update(const Exec& exec, const Parameter& p, const ParameterBlocks& b, const OptimizerOptions& o, float decay,
                 double grad_scale, Arena& scratch) {
  const auto& k = kernels::optimizer_kernels();
  Arena::Scope scope(scratch);
  const int64_t n = p.rows * p.cols;
  Mat direction = scratch.mat(f32_t, p.rows, p.cols), update = scratch.mat(f32_t, p.rows, p.cols);
  for_chunks(exec, n, [&](int64_t, int64_t at, int64_t count) {
    k.momentum(b.moment1 + p.offset + at, b.grad + p.offset + at, direction.f32() + at, count,
               static_cast<float>(o.momentum), static_cast<float>(grad_scale));
  });
  newton_schulz(exec, direction, update, scratch);
  const double rate = o.lr * 0.18 * std::sqrt(static_cast<double>(std::max(p.rows, p.cols)));
  for_chunks(exec, n, [&](int64_t, int64_t at, int64_t count) {
    k.apply(p.weight + at, update.f32() + at, count, decay, static_cast<float>(rate));
  });
}

}  // namespace

double global_norm(const Exec& exec, const float* grad, int64_t n) {
  std::vector<double> partial(static_cast<size_t>((n + kChunk - 1) / kChunk));
  for_chunks(exec, n, [&](int64_t c, int64_t at, int64_t count) {
    partial[static_cast<size_t>(c)] = kernels::optimizer_kernels().sum_squares(grad + at, count);
  });
  double sum = 0;
  for (const double x : partial) sum += x;
  return std::sqrt(sum);
}

double clip_factor(double norm, double limit) { return std::min(1.0, limit / (norm + 1e-6)); }

void optimizer_step(const Exec& exec, std::span<const Parameter> parameters, const ParameterBlocks& b,
                    const OptimizerOptions& o, int64_t step, double grad_scale, Arena& scratch) {
  BK_CHECK_LE(1, step);
  kernels::AdamwFactors f{};
  f.grad_scale = static_cast<float>(grad_scale);
  f.beta1 = static_cast<float>(o.beta1);
  f.beta2 = static_cast<float>(o.beta2);
  f.step = static_cast<float>(o.lr / (1 - std::pow(o.beta1, static_cast<double>(step))));
  f.inv_sqrt_bias2 = static_cast<float>(1 / std::sqrt(1 - std::pow(o.beta2, static_cast<double>(step))));
  f.eps = static_cast<float>(o.eps);
  const auto decay_of = [&](const Parameter& p) {
    return static_cast<float>(p.decay ? 1 - o.lr * o.weight_decay : 1.0);
  };

  // Neighbouring tensors that are treated alike are one pass.
  struct Run {
    float* weight;
    int64_t begin, end;
    float decay;
  };
  std::vector<Run> runs;
  int64_t covered = 0;
  for (const Parameter& p : parameters) {
    BK_CHECK_LE(p.offset + p.rows * p.cols, b.size);
    if (!exec.dry() && p.offset > covered)
      std::memset(b.grad + covered, 0, static_cast<size_t>(p.offset - covered) * 4);
    covered = std::max(covered, p.offset + p.rows * p.cols);
    if (p.muon) {
      muon_update(exec, p, b, o, decay_of(p), grad_scale, scratch);
      continue;
    }
    const int64_t end = p.offset + p.rows * p.cols;
    const bool follows = !runs.empty() && runs.back().end == p.offset &&
                         runs.back().weight + (runs.back().end - runs.back().begin) == p.weight;
    if (follows && runs.back().decay == decay_of(p))
      runs.back().end = end;
    else
      runs.push_back({p.weight, p.offset, end, decay_of(p)});
  }
  if (exec.dry()) return;
  if (covered < b.size) std::memset(b.grad + covered, 0, static_cast<size_t>(b.size - covered) * 4);
  struct Task {
    float* weight;
    int64_t at, count;
    float decay;
  };
  std::vector<Task> tasks;
  for (const Run& r : runs)
    for (int64_t at = r.begin; at < r.end; at += kChunk)
      tasks.push_back({r.weight + (at - r.begin), at, std::min(kChunk, r.end - at), r.decay});
  exec.parallel_for(static_cast<int64_t>(tasks.size()), [&](int64_t i) {
    const Task& t = tasks[static_cast<size_t>(i)];
    kernels::AdamwFactors mine = f;
    mine.decay = t.decay;
    kernels::optimizer_kernels().adamw(t.weight, b.grad + t.at, b.moment1 + t.at, b.moment2 + t.at, t.count, mine);
  });
}

}  // namespace birkhoff::optim
