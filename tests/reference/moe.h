// Mixture of experts token by token (models.md B-E), and the balance losses from their definitions. Decisions are taken
// on real parts and are constants of the gradient, as in training.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "reference/tensors.h"

namespace birkhoff::reference {

enum class Score { softmax, sigmoid, sqrtsoftplus };

struct Router {
  Score score;
  size_t experts, active, groups = 1, kept_groups = 1;
  bool bias = false, normalise = false;
  double scaling = 1;

  template <class S>
  std::vector<S> scores(const S* logits) const;

  // Chosen experts, ascending.
  template <class S>
  std::vector<size_t> choose(const std::vector<S>& s, const std::vector<S>& b) const;
};

struct Balance {
  double expert = 0, device = 0, communication = 0, sequence = 0, mixtral = 0;
  size_t devices = 1, devices_per_token = 1;
};

// Mixtral's loss, E sum_e f_e P_e, over the tokens of all layers that were added.
template <class S>
struct MixtralPool {
  double tokens = 0;
  std::vector<double> count;
  std::vector<S> affinity;
  void add(const std::vector<std::vector<S>>& a, const std::vector<size_t>& index, size_t experts);
  S loss() const;
};

template <class S>
struct MoeResult {
  std::vector<S> y;
  S balance = 0;
  std::vector<size_t> index;  // [T, K]
};

struct Moe {
  size_t dim, inter, shared_inter;
  Router router;
  Balance balance;
  double limit = INFINITY;

  // sequences: first token of each. ids: the tokens, where experts are looked up by them. pool: of all layers, whose
  // Mixtral loss then is not in the result; nullptr: this layer is all.
  template <class S>
  MoeResult<S> operator()(const Tensors<S>& w, const std::string& p, const std::vector<S>& x, size_t T,
                          const std::vector<int32_t>& sequences, const std::vector<int32_t>& ids = {},
                          MixtralPool<S>* pool = nullptr) const;
};

}  // namespace birkhoff::reference
