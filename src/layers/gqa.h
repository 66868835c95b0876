// Multi-head and grouped-query attention (models.md A.1, A.4): keys and values of fewer heads, each read by a group of
// query heads.
#pragma once
#include <string>
#include <vector>

#include "layers/cache.h"
#include "layers/linear.h"
#include "layers/parameter.h"
#include "layers/pass.h"
#include "ops/attention/attention.h"

namespace birkhoff::layers {

struct Gqa {
  struct Spec {
    using Layer = Gqa;
    int64_t dim = 0, heads = 0, kv_heads = 0, head_dim = 0;
    float scale = 1.f;
    ops::RopeLayout layout = ops::RopeLayout::half_split;
    bool bias = false;  // of q_proj, k_proj and v_proj
    bool norm = false;  // RMSNorm of every query and key head before the rotation, one weight for all heads
    float eps = 1e-6f;  // of that
    int64_t q_cols() const { return heads * head_dim; }
    int64_t kv_cols() const { return kv_heads * head_dim; }
    int64_t cache_cols() const { return 2 * kv_cols(); }
    CacheSize cache_size() const { return {static_cast<double>(cache_cols()), 0, 2 * kv_heads}; }
    int64_t score_products() const { return heads * 2 * head_dim; }  // multiplications per query and key
  };
  struct Weights {
    Linear qkv;                  // [q_cols + 2 kv_cols, dim]: q_proj, k_proj, v_proj
    Mat q_bias, k_bias, v_bias;  // [1, q_cols], [1, kv_cols] twice, or none
    Mat q_norm, k_norm;          // [1, head_dim], or none
    Linear out;                  // [dim, q_cols]
    explicit Weights(const Spec& s);
    Weights() = default;
    template <class W, class F>
    static void visit(W& w, const std::string& p, F&& f) {
      f(p, w.qkv);
      if (!w.q_bias.empty()) {
        f(p + "q_proj.bias", w.q_bias, Role::linear_bias);
        f(p + "k_proj.bias", w.k_bias, Role::linear_bias);
        f(p + "v_proj.bias", w.v_bias, Role::linear_bias);
      }
      if (!w.q_norm.empty()) {
        f(p + "q_norm.weight", w.q_norm, Role::norm);
        f(p + "k_norm.weight", w.k_norm, Role::norm);
      }
      f(p, w.out);
    }
  };
  // What texts keep of their earlier tokens.
  struct Cache {
    ops::PagedRows rows;  // [.., 2 kv_cols]: rotated keys, values
    using Slot = NoSlot;
    std::vector<Slot> slots;
    Cache(ops::PageMemory& memory, const Spec& s)
        : rows(memory, std::vector<int64_t>(static_cast<size_t>(2 * s.kv_heads), s.head_dim),
               ops::RowLayout::by_group) {}
  };
  struct Saved {
    Mat a;       // [T, q_cols + 2 kv_cols]; queries are rotated in place unless a backward needs them as they are
    Mat q;       // view of a, or with norms of their own [T, q_cols]
    Mat rstd;    // [T, heads + kv_heads] of the norms
    Mat o, lse;  // [T, q_cols], [T, heads]
    Mat kv;      // [T, 2 kv_cols]: rotated keys, values
  };
  static Saved reserve(Arena& arena, const Spec& s, DType dtype, int64_t tokens, Keep keep);
  // Without a cache the keys are the T tokens; with one every part of the pass has what stands there, followed by its
  // own tokens, which are written there.
  static void forward(const Pass& p, const Spec& s, const Weights& w, CMat x, Saved& saved, Mat y,
                      const Cache* cache = nullptr);
  static void backward(const Pass& p, const Spec& s, const Weights& w, CMat x, const Saved& saved, Cotangents d,
                       Weights& grad);
};

}  // namespace birkhoff::layers
