// One token behind many, through all layers: attention over heads' keys and values in pages (30 layers of SmolLM2) and
// over latents in pages (27 layers of V2-Lite), which caches of bf16 hold as numbers and int8 as codes.
#include <benchmark/benchmark.h>

#include <vector>

#include "core/arena.h"
#include "core/rng.h"
#include "ops/attention/latent_attention.h"
#include "ops/attention/paged_rows.h"

namespace birkhoff {
namespace {

void fill_random(Mat m, uint64_t stream) {
  const Rng rng(stream);
  for (int64_t i = 0; i < m.size(); ++i) m.b16()[i] = to_bf16(static_cast<float>(rng.normal(static_cast<uint64_t>(i))));
}

struct DecodeProblem {
  const Exec exec{2};
  ops::PageMemory memory;
  std::vector<ops::PagedRows> layers;
  std::vector<int32_t> pages, first = {0};
  Arena cache, other{size_t{16} << 20};
  Mat q, o;

  DecodeProblem(int64_t count, int64_t depth, ops::CacheType type, const std::vector<int64_t>& groups,
                ops::RowLayout layout, int64_t q_cols, int64_t o_cols)
      : memory{type},
        layers(made(count, groups, layout)),
        cache(static_cast<size_t>(memory.page_bytes * (depth / ops::kPageRows))),
        q(other.mat(bf16_t, 1, q_cols)),
        o(other.mat(bf16_t, 1, o_cols)) {
    memory.base = cache.base();
    for (int64_t i = 0; i < depth / ops::kPageRows; ++i) pages.push_back(static_cast<int32_t>(i));
    const Mat rows = other.mat(bf16_t, ops::kPageRows, layers[0].cols());
    fill_random(rows, 1);
    fill_random(q, 2);
    for (const ops::PagedRows& l : layers)
      for (int64_t r = 0; r < depth; r += ops::kPageRows) l.write(exec, rows, pages, r);
  }
  std::vector<ops::PagedRows> made(int64_t count, const std::vector<int64_t>& groups, ops::RowLayout layout) {
    std::vector<ops::PagedRows> r;
    for (int64_t i = 0; i < count; ++i) r.emplace_back(memory, groups, layout);
    return r;
  }
};

void BM_DecodeHeads(benchmark::State& state) {
  constexpr int64_t kHeads = 9, kKvHeads = 3, kDim = 64, kCols = kKvHeads * kDim;
  const int64_t depth = state.range(0);
  const DecodeProblem p(30, depth, ops::CacheType::bf16, std::vector<int64_t>(size_t{2} * kKvHeads, kDim),
                        ops::RowLayout::by_group, kHeads * kDim, kHeads * kDim);
  for (auto _ : state)
    for (const ops::PagedRows& l : p.layers) {
      const ops::KeyRows kv = l.view(p.pages, depth);
      ops::attention_forward(p.exec, {kHeads, kKvHeads, kDim, kDim, 0.125f}, p.q, kv.col_block(0, kCols),
                             kv.col_block(kCols, kCols), p.first, p.o, {});
    }
}
BENCHMARK(BM_DecodeHeads)->ArgName("depth")->Arg(512)->Arg(4096)->Unit(benchmark::kMillisecond)->UseRealTime();

void BM_DecodeLatents(benchmark::State& state) {
  const int64_t depth = state.range(0);
  const auto type = state.range(1) ? ops::CacheType::int8 : ops::CacheType::bf16;
  const DecodeProblem p(27, depth, type, {512, 64}, ops::RowLayout::whole, 16 * 576, 16 * 512);
  Arena scratch(size_t{64} << 20);
  for (auto _ : state)
    for (const ops::PagedRows& l : p.layers) {
      const ops::KeyRows latents = state.range(1) ? l.encoded_view(p.pages, depth, bf16_t) : l.view(p.pages, depth);
      ops::latent_attention_forward(p.exec, {16, 1, 576, 512, 0.07f}, p.q, latents, p.first, p.o, scratch);
    }
}
BENCHMARK(BM_DecodeLatents)
    ->ArgNames({"depth", "int8"})
    ->ArgsProduct({{4096, 16384}, {0, 1}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
}  // namespace birkhoff
