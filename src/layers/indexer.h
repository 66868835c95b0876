// The lightning indexer of DeepSeek-V3.2 (models.md F.1, F.2): scores every visible token for every query from the
// query latent of the attention it serves, and learns from that attention's probabilities. Its inputs are detached: no
// gradient leaves it.
#pragma once
#include <string>
#include <vector>

#include "layers/linear.h"
#include "layers/parameter.h"
#include "layers/pass.h"
#include "ops/attention/indexer.h"

namespace birkhoff::layers {

struct Indexer {
  struct Spec {
    int64_t dim = 0, q_lora = 0, heads = 0, head_dim = 0, topk = 0;
    float norm_eps = 1e-6f;
    ops::IndexerShape shape() const { return {heads, head_dim}; }
  };
  struct Weights {
    Linear wq_b;          // [heads*head_dim, q_lora]
    Linear wk;            // [head_dim, dim]
    Mat k_norm, k_bias;   // [1, head_dim], LayerNorm
    Linear weights_proj;  // [heads, dim], always multiplied in fp32
    Weights() = default;
    explicit Weights(const Spec& s);
    template <class W, class F>
    static void visit(W& w, const std::string& p, F&& f) {
      f(p, w.wq_b);
      f(p, w.wk);
      f(p + "k_norm.weight", w.k_norm, Role::norm);
      f(p + "k_norm.bias", w.k_bias, Role::bias);
      f(p, w.weights_proj);
    }
  };
  struct Saved {
    Mat q;               // [T, heads*head_dim] rotated
    Mat k_raw, k_stats;  // [T, head_dim] before the norm, [T, 2]
    Mat w;               // [T, heads] fp32, times heads^-1/2 head_dim^-1/2
    Mat k;               // [T, head_dim] normalised and rotated keys
    ops::IndexerTensors tensors() const { return {q, k, w}; }
  };
  static Saved reserve(Arena& arena, const Spec& s, DType dtype, int64_t tokens);
  // x [T, dim] is the input of the attention, latent [T, q_lora] its normalised query latent.
  static void project(const Pass& p, const Spec& s, const Weights& w, CMat x, CMat latent, Saved& saved);
  // keys [n, S]: the selected keys of the tokens of `in`, the last n of its M keys, as ops::indexer_select.
  static void select(const Pass& p, const Spec& s, const ops::IndexerTensors& in, std::span<const int32_t> first_key,
                     IndexMat keys);
  // grad += of the loss whose gradients with respect to q [T, ...], k [T, head_dim] and w are given (all three are
  // overwritten).
  static void backward(const Pass& p, const Spec& s, const Weights& w, CMat x, CMat latent, const Saved& saved,
                       const ops::IndexerGradients& d, Weights& grad);
};

// One past the last key of every token: T tokens are the last of M keys.
std::vector<int32_t> end_keys(int64_t tokens, int64_t keys);

}  // namespace birkhoff::layers
