// One site of the residual path (plain, mHC with Sinkhorn, mHC-lite, KromHC) at the shapes of the presets `tiny` and
// `small`, forward and backward, all cores.
#include <benchmark/benchmark.h>

#include <thread>
#include <vector>

#include "core/rng.h"
#include "ops/gemm/projection.h"
#include "ops/residual/residual.h"
#include "ops/residual/residual_backward.h"

namespace birkhoff {
namespace {

struct Path {
  ops::ResidualKind kind;
  ops::ResForm form = ops::ResForm::sinkhorn;
};
// The first argument of a benchmark.
constexpr Path kPaths[] = {{ops::ResidualKind::plain},
                           {ops::ResidualKind::mhc},
                           {ops::ResidualKind::mhc, ops::ResForm::lite},
                           {ops::ResidualKind::mhc, ops::ResForm::kron}};

struct Case {
  Exec exec{static_cast<int>(std::thread::hardware_concurrency())};
  Arena memory{size_t{2} << 30}, scratch{size_t{1} << 28};
  ops::ResidualSpec spec;
  ops::SiteWeights w, dw;
  ops::SiteSaved saved, next_saved;
  // Training keeps the states of all sites: they come from memory, not from a cache.
  static constexpr int kSites = 24;
  std::vector<Mat> x, y;
  Mat in, dx;
  size_t at = 0;

  Case(Path path, int64_t tokens, int64_t dim) {
    const ops::ResidualKind kind = path.kind;
    spec.kind = kind;
    spec.res_form = path.form;
    spec.streams = kind == ops::ResidualKind::plain ? 1 : 4;
    spec.dim = dim;
    uint64_t stream = 0;
    const auto fill = [&](Mat m, float scale) {
      const Rng rng(1, stream++);
      for (int64_t r = 0; r < m.rows; ++r)
        for (int64_t c = 0; c < m.cols; ++c) {
          const float v = scale * static_cast<float>(rng.uniform(static_cast<uint64_t>(r * m.cols + c)) - 0.5);
          if (m.dtype == f32_t)
            m.f32(r)[c] = v;
          else
            m.b16(r)[c] = to_bf16(v);
        }
      return m;
    };
    for (ops::SiteWeights* p : {&w, &dw}) {
      p->norm = fill(memory.mat(f32_t, 1, dim), 1);
      if (kind == ops::ResidualKind::plain) continue;
      p->fn = fill(memory.mat(f32_t, spec.coefficients(), 4 * dim), 0.1f);
      p->scale = fill(memory.mat(f32_t, 1, 3), 0.1f);
      p->base = fill(memory.mat(f32_t, 1, spec.coefficients()), 1);
    }
    saved = ops::SiteSaved::take(memory, spec, tokens);
    next_saved = ops::SiteSaved::take(memory, spec, tokens);
    for (int i = 0; i < kSites; ++i) {
      x.push_back(fill(memory.mat(bf16_t, tokens, spec.streams * dim), 1));
      y.push_back(fill(memory.mat(bf16_t, tokens, dim), 1));
    }
    dx = fill(memory.mat(bf16_t, tokens, spec.streams * dim), 1);
    in = memory.mat(bf16_t, tokens, dim);
    ops::site_open(exec, spec, w, x[0], saved, in, scratch);
  }
  size_t step() { return at = (at + 1) % kSites; }
  void advance() {
    const size_t i = step();
    ops::site_advance(exec, spec, {{w, saved}, x[i], y[i]}, x[(i + 1) % kSites], w, next_saved, in, scratch);
  }
  void retreat() {
    const size_t i = step();
    ops::site_retreat(exec, spec, {{w, saved}, x[i], y[i]}, {in, dx, dx}, dw, ops::SiteWriteGradient{{w, saved}, in},
                      scratch);
  }
};

void advance(benchmark::State& state) {
  Case c(kPaths[state.range(0)], state.range(1), state.range(2));
  for (auto _ : state) c.advance();
}
void retreat(benchmark::State& state) {
  Case c(kPaths[state.range(0)], state.range(1), state.range(2));
  for (auto _ : state) c.retreat();
}
void projection_pack(benchmark::State& state) {
  Case c(kPaths[1], state.range(1), state.range(2));
  for (auto _ : state) {
    Arena::Scope scope(c.scratch);
    const ops::Projection p(c.exec, c.w.fn, bf16_t, true, c.scratch);
    benchmark::DoNotOptimize(&p);
  }
}

#define BK_SHAPES ->ArgNames({"path", "T", "D"})->Unit(benchmark::kMillisecond)->UseRealTime()
BENCHMARK(advance) BK_SHAPES->ArgsProduct({{0, 1, 2, 3}, {2048}, {256}})->ArgsProduct({{0, 1, 2, 3}, {4096}, {512}});
BENCHMARK(retreat) BK_SHAPES->ArgsProduct({{0, 1, 2, 3}, {2048}, {256}})->ArgsProduct({{0, 1, 2, 3}, {4096}, {512}});
BENCHMARK(projection_pack) BK_SHAPES->Args({1, 2048, 256})->Args({1, 4096, 512});

}  // namespace
}  // namespace birkhoff
