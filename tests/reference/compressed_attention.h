// Attention of DeepSeek-V4 by its equations (models.md G.3 - G.5), query by query, on any scalar. Selections are
// decided on real parts and are constants of the gradient. Tensors go by their names in memory, behind a prefix.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "reference/layers.h"

namespace birkhoff::reference {

struct CompressedAttention {
  size_t dim, heads, head_dim, rope_dim, q_lora, groups, o_lora, window, ratio;
  size_t index_heads = 0, index_dim = 0, index_topk = 0;
  double eps = 1e-6, theta = 10000;

  bool indexed() const { return ratio == 4; }

  template <class S>
  struct Result {
    std::vector<S> y;
    S kl = 0;  // sum over tokens, with `target` as a constant
    std::vector<std::vector<size_t>> chosen;
    std::vector<std::vector<double>> target;  // attention over the chosen entries, normalised
  };

  // x: input of attention; indexer_x and indexer_cq: what the indexer reads (constants in training). target: given, or
  // computed.
  template <class S>
  Result<S> operator()(const Tensors<S>& w, const std::string& p, const std::vector<S>& x, const Places& at,
                       const std::vector<std::vector<double>>* given = nullptr) const;

 private:
  template <class S>
  struct Entries {
    std::vector<S> rows;
    std::vector<size_t> first, end;  // of every token: [first, end) are visible
  };

  template <class S>
  Entries<S> entries(const Tensors<S>& w, const std::string& p, const std::vector<S>& x, size_t T,
                     const std::vector<int32_t>& starts, size_t width) const;

  Rope rope() const { return {static_cast<int>(rope_dim), theta}; }

  template <class S>
  std::vector<S> latent(const Tensors<S>& w, const std::string& p, const std::vector<S>& x, size_t T) const;

  // Scores of the indexer: [T][entries], of visible entries only.
  template <class S>
  std::vector<std::vector<S>> scores(const Tensors<S>& w, const std::string& p, const std::vector<S>& x,
                                     const std::vector<S>& cq, const Places& at,
                                     const std::vector<int32_t>& starts) const;

  // Entries every token attends to.
  template <class S>
  std::vector<std::vector<size_t>> chosen(const std::vector<std::vector<S>>& score, const Entries<S>& e) const;
};

}  // namespace birkhoff::reference
