// Causal softmax attention row by row, and its vector-Jacobian product written from the softmax derivative.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace birkhoff::reference {

struct Attention {
  int64_t heads, kv_heads, qk, vd;
  double scale;
  int64_t queries, keys;
  std::vector<int32_t> first_key;  // one per query

  int64_t last_key(int64_t t) const { return keys - queries + t; }

  template <class S>
  struct Output {
    std::vector<S> o, lse;
  };
  struct Gradients {
    std::vector<double> dq, dk, dv;
    // The same sums over absolute values: what rounding errors are relative to.
    std::vector<double> size_dq, size_dk, size_dv;
  };

  template <class S>
  Output<S> forward(const std::vector<S>& q, const std::vector<S>& k, const std::vector<S>& v) const;

  Gradients backward(const std::vector<double>& q, const std::vector<double>& k, const std::vector<double>& v,
                     const std::vector<double>& d_o) const;

 private:
  // Probabilities of query t, head h over keys first_key[t] .. last_key(t); returns the log of the denominator.
  template <class S>
  S probabilities(const std::vector<S>& q, const std::vector<S>& k, int64_t t, int64_t h, std::vector<S>& p) const;

  static size_t at(int64_t row, int64_t n_heads, int64_t head, int64_t dim, int64_t c) {
    return static_cast<size_t>((row * n_heads + head) * dim + c);
  }
};

}  // namespace birkhoff::reference
