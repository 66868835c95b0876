// Multi-head latent attention (models.md D.2): low-rank keys and values, one rotary key per token shared by all heads.
#pragma once
#include <functional>
#include <string>

#include "layers/linear.h"
#include "layers/parameter.h"
#include "layers/pass.h"
#include "ops/attention/attention.h"

namespace birkhoff::layers {

// How attention reads a cache (models.md D.2; equal in real arithmetic). expanded: full keys and values of every cached
// token are made again, with the bits of a forward without a cache. absorbed: queries are mapped into the latent space
// and meet the cache as it lies. Which of them is a matter of what the tokens are, never of their number: a token's
// bits may not depend on which others came with it.
enum class MlaForm : uint8_t { expanded, absorbed };

struct Mla {
  struct Spec {
    using Layer = Mla;
    int64_t dim = 0, heads = 0, nope = 0, rope = 0, v = 0;
    int64_t q_lora = 0;  // 0: full-rank query
    int64_t kv_lora = 0;
    float scale = 1.f;        // of the scores, YaRN's mscale^2 included
    float inner_eps = 1e-6f;  // of the two inner norms, whatever rms_norm_eps says
    ops::RopeLayout layout = ops::RopeLayout::interleaved;
    int64_t qk() const { return nope + rope; }
    int64_t q_in() const { return q_lora ? q_lora : heads * qk(); }
    int64_t cache_cols() const { return kv_lora + rope; }
    CacheSize cache_size() const { return {static_cast<double>(cache_cols()), 0}; }
    int64_t score_products() const { return heads * (qk() + v); }  // multiplications per query and key
  };
  struct Weights {
    Linear in;    // [q_in + kv_lora + rope, dim]: q_proj (or q_a_proj) above kv_a_proj_with_mqa
    Mat q_norm;   // [1, q_lora]
    Linear q_b;   // [heads*qk, q_lora]
    Mat kv_norm;  // [1, kv_lora]
    Linear kv_b;  // [heads*(nope+v), kv_lora]
    Linear out;   // [dim, heads*v]
    explicit Weights(const Spec& s);
    Weights() = default;
    template <class W, class F>
    static void visit(W& w, const std::string& p, F&& f) {
      f(p, w.in);
      if (!w.q_norm.empty()) {
        f(p + "q_a_layernorm.weight", w.q_norm, Role::norm);
        f(p, w.q_b);
      }
      f(p + "kv_a_layernorm.weight", w.kv_norm, Role::norm);
      f(p, w.kv_b);
      f(p, w.out);
    }
  };
  // What a sequence keeps of its earlier tokens.
  struct Cache {
    Mat rows;                          // [capacity, kv_lora + rope]: normalised latent and rotated key
    MlaForm form = MlaForm::expanded;  // of the tokens that come next
    static Cache take(Arena& arena, const Spec& s, DType dtype, int64_t capacity) {
      return {arena.mat(dtype, capacity, s.cache_cols()), MlaForm::expanded};
    }
    // Whether the sequence, of `length` tokens, can go on from its first `tokens` alone.
    bool returns_to(int64_t /*length*/, int64_t /*tokens*/) const { return true; }
  };
  struct Saved {
    Mat a;           // [T, q_in + kv_lora + rope]: the first product
    Mat cq, q_rstd;  // normalised query latent [T, q_lora]
    Mat c_rstd;      // [T, 1]
    Mat q;           // [T, heads*qk] rotated (a view of `a` without q_lora)
    Mat k, v;        // [M, heads*qk], [M, heads*v]; empty in the absorbed form
    Mat o, lse;      // [T, heads*v], [T, heads]
    Mat cache;       // [M, kv_lora + rope]: normalised latent and rotated key of every token so far
    bool absorbed() const { return k.empty() && cache.rows > 0; }
  };
  // The keys are `cached` tokens of `cache` followed by T to be written there; without a cache the T tokens alone.
  static Saved reserve(Arena& arena, const Spec& s, DType dtype, int64_t tokens, bool for_backward,
                       Cache* cache = nullptr, int64_t cached = 0);
  static void forward(const Pass& p, const Spec& s, const Weights& w, CMat x, Saved& saved, Mat y);
  static void backward(const Pass& p, const Spec& s, const Weights& w, CMat x, const Saved& saved, Cotangents d,
                       Weights& grad);

  // The parts of the two above, for attention of another kind between the same projections (sparse_mla.h).
  // x -> saved.a, cq, q and the T fresh rows of the cache.
  static void project(const Pass& p, const Spec& s, const Weights& w, CMat x, Saved& saved);
  // saved.cache -> saved.k, v.
  static void expand(const Pass& p, const Spec& s, const Weights& w, Saved& saved);
  // Runs `attend` between the two maps of the absorbed form: q [T, heads*(kv_lora + rope)] that meets rows of the
  // cache, and what it leaves in o [T, heads*kv_lora] becomes saved.o.
  static void absorb(const Pass& p, const Spec& s, const Weights& w, Saved& saved,
                     const std::function<void(CMat q, Mat o)>& attend);
  static ops::AttentionShape expanded_shape(const Spec& s);
  static ops::AttentionShape absorbed_shape(const Spec& s);
  // backward around the gradient of attention alone: attend(d_o, d) assigns d.
  using AttentionGradient = std::function<void(CMat d_o, const ops::AttentionGradients& d)>;
  static void backward_around(const Pass& p, const Spec& s, const Weights& w, CMat x, const Saved& saved, Cotangents d,
                              Weights& grad, const AttentionGradient& attend);
};

}  // namespace birkhoff::layers
