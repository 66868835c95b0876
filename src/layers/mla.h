// Multi-head latent attention (models.md D.2): low-rank keys and values, one rotary key per token shared by all heads.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "layers/cache.h"
#include "layers/linear.h"
#include "layers/parameter.h"
#include "layers/pass.h"
#include "ops/attention/attention.h"

namespace birkhoff::layers {

struct Mla {
  struct Spec {
    using Layer = Mla;
    int64_t dim = 0, heads = 0, nope = 0, rope = 0, v = 0;
    int64_t q_lora = 0;  // 0: full-rank query
    int64_t kv_lora = 0;
    float scale = 1.f;        // of the scores, YaRN's mscale^2 included
    float inner_eps = 1e-6f;  // of the two inner norms, whatever rms_norm_eps says
    ops::RopeLayout layout = ops::RopeLayout::interleaved;
    bool keeps_expanded = false;  // caches hold keys and values of every head, not what they are made of
    int64_t qk() const { return nope + rope; }
    int64_t q_in() const { return q_lora ? q_lora : heads * qk(); }
    int64_t latent_cols() const { return kv_lora + rope; }
    int64_t expanded_cols() const { return heads * (qk() + v); }
    CacheSize cache_size() const {
      if (keeps_expanded) return {static_cast<double>(expanded_cols()), 0, 2 * heads};
      return {static_cast<double>(latent_cols()), 0, 2};
    }
    int64_t score_products() const { return heads * (qk() + v); }  // multiplications per query and key
  };
  struct Weights {
    Linear in;    // [q_in + kv_lora + rope, dim]: q_proj (or q_a_proj) above kv_a_proj_with_mqa
    Mat q_norm;   // [1, q_lora]
    Linear q_b;   // [heads*qk, q_lora]
    Mat kv_norm;  // [1, kv_lora]
    Linear kv_b;  // [heads*(nope+v), kv_lora]; by head too where caches hold latents
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
  // What texts keep of their earlier tokens.
  struct Cache {
    // [.., kv_lora + rope]: normalised latent and rotated key; or [.., heads*(qk+v)]: keys, values
    ops::PagedRows rows;
    using Slot = NoSlot;
    std::vector<Slot> slots;
    Cache(ops::PageMemory& memory, const Spec& s);
  };
  struct Saved {
    Mat a;           // [T, q_in + kv_lora + rope]: the first product
    Mat cq, q_rstd;  // normalised query latent [T, q_lora]
    Mat c_rstd;      // [T, 1]
    Mat q;           // [T, heads*qk] rotated (a view of `a` without q_lora)
    Mat latent;      // [T, kv_lora + rope]: normalised latent and rotated key, what later tokens need of these
    Mat k, v;        // [T, heads*qk], [T, heads*v]; empty with a cache
    Mat o, lse;      // [T, heads*v], [T, heads]
  };
  static Saved reserve(Arena& arena, const Spec& s, DType dtype, int64_t tokens, Keep keep);
  // Without a cache the keys are the T tokens; with one every part of the pass has what stands there, followed by its
  // own tokens, which are written there.
  static void forward(const Pass& p, const Spec& s, const Weights& w, CMat x, Saved& saved, Mat y,
                      const Cache* cache = nullptr);
  static void backward(const Pass& p, const Spec& s, const Weights& w, CMat x, const Saved& saved, Cotangents d,
                       Weights& grad);

  // The parts of the two above, for attention of another kind between the same projections (sparse_mla.h).
  // x -> saved.a, cq, q, latent.
  static void project(const Pass& p, const Spec& s, const Weights& w, CMat x, Saved& saved);
  // latent [M, kv_lora + rope] -> k [M, heads*qk], v [M, heads*v].
  static void expand(const Pass& p, const Spec& s, const Weights& w, CMat latent, Mat k, Mat v);
  // What attention does with the rows [first, first + n) of saved, of one part of a cached pass.
  struct CachedAttention {
    // q, o rows of saved; k [M, heads*qk], v [M, heads*v] of all keys.
    std::function<void(const CachedPart& part, CMat q, const ops::KeyRows& k, const ops::KeyRows& v, Mat o)> expanded;
    // q [n, heads*(kv_lora + rope)] meets the M latents; o [n, heads*kv_lora].
    std::function<void(const CachedPart& part, CMat q, const ops::KeyRows& latents, Mat o)> absorbed;
    bool reads_encoded = false;  // absorbed takes latents of any type of cache
  };
  // saved.latent, or what it expands to -> the cache, then part after part, each in its form -> saved.o. Where keys and
  // values are kept the form is expanded.
  static void attend_cached(const Pass& p, const Spec& s, const Weights& w, const Cache& cache, Saved& saved,
                            const CachedAttention& attend);
  static ops::AttentionShape expanded_shape(const Spec& s);
  static ops::AttentionShape absorbed_shape(const Spec& s);
  // backward around the gradient of attention alone: attend(d_o, d) assigns d.
  using AttentionGradient = std::function<void(CMat d_o, const ops::AttentionGradients& d)>;
  static void backward_around(const Pass& p, const Spec& s, const Weights& w, CMat x, const Saved& saved, Cotangents d,
                              Weights& grad, const AttentionGradient& attend);
};

}  // namespace birkhoff::layers
