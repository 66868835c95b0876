// Attention over listed keys against dense attention of the same queries, and the indexer's selection, at 1,024 tokens.
#include <benchmark/benchmark.h>

#include <vector>

#include "core/rng.h"
#include "ops/attention/attention.h"
#include "ops/attention/indexer.h"
#include "ops/attention/sparse_attention.h"

namespace birkhoff {
namespace {

struct Problem {
  static constexpr int64_t T = 1024;
  Arena memory{size_t{512} << 20}, scratch{size_t{512} << 20};
  ops::SparseAttentionShape s;
  Mat q, k, v, o, lse, d_o, dq, dk, dv;
  IndexMat keys;
  std::vector<int32_t> first, end;

  Problem(ops::SparseAttentionShape shape, int64_t topk, DType t) : s(shape) {
    const auto make = [&](int64_t cols) { return memory.mat(t, T, cols); };
    q = make(s.heads * s.qk_dim), k = make(s.kv_heads * s.qk_dim), v = make(s.kv_heads * s.v_dim),
    o = make(s.heads * s.v_dim);
    d_o = make(o.cols), dq = make(q.cols), dk = make(k.cols), dv = make(v.cols), lse = memory.mat(f32_t, T, s.heads);
    uint64_t stream = 0;
    for (Mat m : {q, k, v, d_o}) {
      const Rng rng(++stream);
      for (int64_t i = 0; i < m.size(); ++i) {
        const auto x = static_cast<float>(rng.normal(static_cast<uint64_t>(i)));
        if (t == f32_t)
          m.f32()[i] = x;
        else
          m.b16()[i] = to_bf16(x);
      }
    }
    // What an untrained indexer selects: keys all over the past.
    const Rng rng(9);
    Mat iq = memory.mat(f32_t, T, 4 * 32), ik = memory.mat(f32_t, T, 32), iw = memory.mat(f32_t, T, 4);
    for (Mat m : {iq, ik, iw})
      for (int64_t i = 0; i < m.size(); ++i) m.f32()[i] = static_cast<float>(rng.normal(static_cast<uint64_t>(i)));
    for (int32_t t0 = 0; t0 < T; ++t0) first.push_back(0), end.push_back(t0 + 1);
    keys = memory.index_mat(T, topk);
    ops::indexer_select(Exec(1), {4, 32}, {iq, ik, iw}, first, end, keys, scratch);
  }
};

// 16 heads with keys of their own (training), or over one latent (the absorbed form, V4).
ops::SparseAttentionShape shape_of(bool latent) {
  return latent ? ops::SparseAttentionShape{16, 1, 576, 512, 0.1f} : ops::SparseAttentionShape{16, 16, 96, 64, 0.1f};
}

void BM_Sparse(benchmark::State& state) {
  Problem p(shape_of(state.range(0)), state.range(1), state.range(2) ? bf16_t : f32_t);
  const Exec exec(static_cast<int>(state.range(3)));
  for (auto _ : state) {
    ops::sparse_attention_forward(exec, p.s, {p.q, p.k, p.v, p.keys}, p.o, p.lse, p.scratch);
    if (state.range(4))
      ops::sparse_attention_backward(exec, p.s, {{p.q, p.k, p.v, p.keys}, p.o, p.lse}, p.d_o, {p.dq, p.dk, p.dv},
                                     p.scratch);
  }
}
BENCHMARK(BM_Sparse)
    ->ArgNames({"latent", "topk", "bf16", "threads", "backward"})
    ->ArgsProduct({{0, 1}, {64, 256}, {0, 1}, {2}, {0, 1}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

void BM_Dense(benchmark::State& state) {
  Problem p(shape_of(state.range(0)), 1, state.range(1) ? bf16_t : f32_t);
  const Exec exec(static_cast<int>(state.range(2)));
  const std::vector<int32_t> segment = {0};
  const ops::AttentionShape s{p.s.heads, p.s.kv_heads, p.s.qk_dim, p.s.v_dim, p.s.scale};
  for (auto _ : state) {
    ops::attention_forward(exec, s, p.q, p.k, p.v, p.first, p.o, p.lse);
    if (state.range(3))
      ops::attention_backward(exec, s, {p.q, p.k, p.v, p.first, segment, p.o, p.lse}, p.d_o, {p.dq, p.dk, p.dv});
  }
}
BENCHMARK(BM_Dense)
    ->ArgNames({"latent", "bf16", "threads", "backward"})
    ->ArgsProduct({{0, 1}, {0, 1}, {2}, {0, 1}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

void BM_Select(benchmark::State& state) {
  Arena memory(size_t{64} << 20), scratch(1 << 20);
  const int64_t M = state.range(0), T = state.range(1);
  Mat q = memory.mat(f32_t, T, 64 * 128), k = memory.mat(f32_t, M, 128), w = memory.mat(f32_t, T, 64);
  for (Mat m : {q, k, w})
    for (int64_t i = 0; i < m.size(); ++i) m.f32()[i] = static_cast<float>(Rng(1).normal(static_cast<uint64_t>(i)));
  const std::vector<int32_t> first(static_cast<size_t>(T), 0), end(static_cast<size_t>(T), static_cast<int32_t>(M));
  const IndexMat keys = memory.index_mat(T, 2048);
  const Exec exec(2);
  for (auto _ : state) ops::indexer_select(exec, {64, 128}, {q, k, w}, first, end, keys, scratch);
}
BENCHMARK(BM_Select)
    ->ArgNames({"keys", "queries"})
    ->Args({8192, 1})
    ->Args({8192, 64})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
}  // namespace birkhoff
