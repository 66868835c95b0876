// A layer's weights with memory, and the comparison of its results and gradients with a specification.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "core/arena.h"
#include "layers/cache.h"
#include "layers/linear.h"
#include "layers/pass.h"
#include "layers/tokens.h"
#include "layers/visit.h"
#include "ops/attention/rope.h"
#include "reference/tensors.h"
#include "support/matrix.h"

namespace birkhoff::test {

using reference::Tensors;

// W: the Weights of a layer. Random values that keep outputs of the size of the inputs; for a bf16 layer the weights of
// products are bf16 numbers, so that their packed copies are exact. The gradient twin does not start at zero, since
// gradients accumulate.
template <class W>
class LayerWeights {
 public:
  W w, grad;

  LayerWeights(const W& shapes, DType compute, uint64_t seed) : w(shapes), grad(shapes), memory_(size_t{32} << 20) {
    fill(w, seed, [&](const Mat& m, layers::Role role, double normal) {
      if (role == layers::Role::norm) return 1 + 0.2 * normal;
      if (role == layers::Role::router_bias || role == layers::Role::bias || role == layers::Role::linear_bias)
        return 0.1 * normal;
      const double v = normal / std::sqrt(static_cast<double>(m.cols));
      return role == layers::Role::router || compute == f32_t
                 ? 2 * v
                 : static_cast<double>(to_float(to_bf16(static_cast<float>(2 * v))));
    });
    fill(grad, seed + 1, [](const Mat&, layers::Role, double normal) { return normal; });
    before_ = tensors(grad);
    const Exec exec(1);
    const auto pack = [&](layers::Linear& l, DType t) {
      l.take_packed(memory_, t, true);
      l.refresh(exec);
    };
    layers::for_each_linear(w, "",
                            [&](const std::string&, layers::Linear& l) { pack(l, l.always_fp32 ? f32_t : compute); });
  }
  LayerWeights(const LayerWeights&) = delete;

  Tensors<double> values() { return tensors(w); }
  // What backward added.
  Tensors<double> gradients() {
    Tensors<double> g = tensors(grad);
    for (auto& [name, v] : g)
      for (size_t i = 0; i < v.size(); ++i) v[i] -= before_.at(name)[i];
    return g;
  }
  void reset_gradients() {
    layers::for_each_tensor(grad, "", [&](const std::string& name, Mat m, layers::Role) {
      for (int64_t i = 0; i < m.size(); ++i) m.f32()[i] = static_cast<float>(before_.at(name)[static_cast<size_t>(i)]);
    });
  }

 private:
  template <class F>
  void fill(W& target, uint64_t seed, F&& value) {
    layers::bind_tensors(target, [&](Mat& m, size_t) { m.data = memory_.take<float>(m.size()); });
    uint64_t stream = 0;
    layers::for_each_tensor(target, "", [&](const std::string&, Mat m, layers::Role role) {
      const Rng rng(seed, stream++);
      for (int64_t i = 0; i < m.size(); ++i)
        m.f32()[i] = static_cast<float>(value(m, role, rng.normal(static_cast<uint64_t>(i))));
    });
  }
  static Tensors<double> tensors(const W& from) {
    Tensors<double> t;
    layers::for_each_tensor(from, "", [&](const std::string& name, CMat m, layers::Role) {
      t[name] = std::vector<double>(m.f32(), m.f32() + m.size());
    });
    return t;
  }

  Arena memory_;
  Tensors<double> before_;
};

// The cache of one attention layer, with room for texts of `tokens` tokens in every type. Pages are handed out
// backwards.
template <class Layer>
struct LayerCache {
  ops::PageMemory memory;
  typename Layer::Cache cache;
  Arena pages, slots{size_t{1} << 20};
  std::vector<std::vector<int32_t>> pages_of;  // every text

  LayerCache(const typename Layer::Spec& s, DType t, ops::CacheType type, int64_t tokens, int64_t texts = 1)
      : memory{type},
        cache(memory, s),
        pages(static_cast<size_t>(memory.page_bytes * (tokens / ops::kPageRows + 1) * texts)) {
    memory.base = pages.base();
    int32_t next = static_cast<int32_t>((tokens / ops::kPageRows + 1) * texts);
    for (int64_t i = 0; i < texts; ++i) {
      cache.slots.push_back(Layer::Cache::Slot::take(slots, s, t, tokens));
      pages_of.emplace_back();
      for (int64_t k = 0; k <= tokens / ops::kPageRows; ++k) pages_of.back().push_back(--next);
    }
  }
  layers::CachedPart part(int64_t first, int64_t tokens, int64_t past, layers::MlaForm form, size_t text = 0) const {
    return {first, tokens, past, form, pages_of[text], text};
  }
};

// Output [T, cols] of an attention layer whose tokens pass through a cache in pieces.
template <class Layer>
Owned through_cache(const typename Layer::Spec& s, const typename Layer::Weights& w, const ops::RopeTable& rope,
                    const layers::TokenContext& ctx, const Owned& x, const LayerCache<Layer>& cache, int64_t piece,
                    layers::MlaForm form = layers::MlaForm::expanded) {
  Arena memory(size_t{8} << 20), scratch(size_t{64} << 20);
  const CMat in = x;
  Owned out(in.rows, in.cols, in.dtype);
  for (int64_t begin = 0; begin < in.rows; begin += piece) {
    const int64_t n = std::min(piece, in.rows - begin);
    layers::TokenContext here = ctx.rows(begin, n);
    const layers::CachedPart part = cache.part(0, n, begin, form);
    here.parts = {&part, 1};
    Arena::Scope scope(memory);
    auto saved = Layer::reserve(memory, s, in.dtype, n, layers::Keep::cached);
    Layer::forward({Exec(1), rope, here, scratch}, s, w, in.row_block(begin, n), saved, Mat(out).row_block(begin, n),
                   &cache.cache);
    EXPECT_EQ(scratch.used(), 0u);
  }
  return out;
}

// Error of a chain of `stages` ops, relative to the largest result: each stage sums at most `terms` products in fp32 (8
// sqrt(terms) roundings, as in sum_tolerance) and rounds what it stores; 4 allows for results smaller than the terms
// that they are sums of.
inline double chain_tolerance(int stages, int64_t terms, DType stored) {
  const double store = stored == f32_t ? 0x1p-24 : 0x1p-9;
  return stages * (8 * std::sqrt(static_cast<double>(std::max<int64_t>(terms, 1))) * 0x1p-24 + 4 * store);
}

// Elements the specification left out (NaN) are not compared. slack: absolute, for gradients added to values.
inline void expect_gradient(const std::vector<double>& got, const std::vector<double>& want, double relative,
                            double slack, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  std::vector<double> g, w;
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(want[i])) continue;
    g.push_back(got[i]);
    w.push_back(want[i]);
  }
  expect_close(g, w, relative * largest(w) + slack, what);
}

// Every tensor but the biases of routers, which have no gradient.
inline void expect_gradients(const Tensors<double>& got, const Tensors<double>& want, double relative,
                             const std::string& except = "gate.e_score_correction_bias") {
  constexpr double kAdded = 8 * 0x1p-24 * 4;  // rounding of sums with old values of up to four standard deviations
  for (const auto& [name, g] : got) {
    if (name == except || name == "gate.tid2eid") {
      EXPECT_EQ(largest(g), 0.0) << name << " has no gradient";
      continue;
    }
    ASSERT_TRUE(want.count(name)) << name;
    expect_gradient(g, want.at(name), relative, kAdded, "gradient of " + name);
  }
}

}  // namespace birkhoff::test
