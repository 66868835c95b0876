// The layers by their equations (models.md A.1, D.2, F), on any scalar. Tensors go by their names in a checkpoint,
// behind a prefix.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "reference/grouped_inputs.h"
#include "reference/rope.h"
#include "reference/sparse_attention.h"
#include "reference/tensors.h"

namespace birkhoff::reference {

// x [T, heads * head_cols]: rotates channels [first, first + rope.dim) of every head.
template <class S>
void rotate_heads(std::vector<S>& x, const Rope& rope, bool interleaved, const std::vector<int32_t>& position,
                  size_t heads, size_t head_cols, size_t first);

// Where the tokens stand: one position and one first visible key each.
struct Places {
  std::vector<int32_t> position, first_key;
  size_t tokens() const { return position.size(); }
};

struct Mla {
  size_t dim, heads, nope, rope_dim, v, q_lora, kv_lora;
  double scale, inner_eps = 1e-6, theta = 10000;
  bool interleaved = true;

  template <class S>
  struct Projections {
    std::vector<S> latent, q, key, value;
  };

  template <class S>
  Projections<S> project(const Tensors<S>& w, const std::string& p, const std::vector<S>& x, const Places& at) const;

  template <class S>
  std::vector<S> operator()(const Tensors<S>& w, const std::string& p, const std::vector<S>& x, const Places& at) const;
};

// DeepSeek sparse attention (models.md F).
struct SparseMla {
  Mla mla;
  size_t heads, head_dim, topk;
  double norm_eps = 1e-6;

  // most: keys a token may select.
  template <class S>
  KeyLists lists(const Tensors<S>& w, const std::string& p, const std::vector<S>& x, const Places& at,
                 size_t most) const;
  template <class S>
  std::vector<S> operator()(const Tensors<S>& w, const std::string& p, const std::vector<S>& x, const Places& at,
                            const KeyLists& seen) const;
  // Sum over tokens of the KL of the probabilities of attention over `seen`, which is also what the indexer's softmax
  // runs over. A function of the indexer's weights alone: `fixed` gives everything else.
  template <class S>
  S divergence(const Tensors<double>& fixed, const Tensors<S>& w, const std::string& p, const std::vector<double>& x,
               const Places& at, const KeyLists& seen) const;

 private:
  template <class S>
  struct Scored {
    std::vector<S> q, k, w;
  };
  template <class S>
  Scored<S> score_inputs(const Tensors<S>& w, const std::string& p, const std::vector<S>& x,
                         const std::vector<S>& latent, const Places& at) const;
  Indexer indexer() const { return {heads, head_dim}; }
};

struct Gqa {
  size_t dim, heads, kv_heads, head_dim;
  double scale, theta = 10000;
  GroupedInputs inputs = {};

  template <class S>
  std::vector<S> operator()(const Tensors<S>& w, const std::string& p, const std::vector<S>& x, const Places& at) const;
};

template <class S>
S silu(S x) {
  return x / (1.0 + std::exp(-x));
}

// down(silu(gate x) * up x); with a limit gate is cut above it, up on both sides.
struct SwiGlu {
  size_t dim, inter;
  double limit = INFINITY;

  template <class S>
  std::vector<S> operator()(const Tensors<S>& w, const std::string& p, const std::vector<S>& x, size_t T) const;
};

}  // namespace birkhoff::reference
