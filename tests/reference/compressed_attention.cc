#include "reference/compressed_attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "reference/compressor.h"
#include "reference/gemm.h"
#include "reference/norm.h"

namespace birkhoff::reference {
namespace {

// KL(p || softmax of the scores of `rows`)
template <class S>
S divergence(const std::vector<double>& p, const std::vector<S>& score, const std::vector<size_t>& rows) {
  S sum = 0, kl = 0;
  for (size_t row : rows) sum += std::exp(score[row]);
  for (size_t i = 0; i < rows.size(); ++i)
    if (p[i] > 0) kl += p[i] * (std::log(p[i]) - (score[rows[i]] - std::log(sum)));
  return kl;
}

}  // namespace

template <class S>
CompressedAttention::Entries<S> CompressedAttention::entries(const Tensors<S>& w, const std::string& p,
                                                             const std::vector<S>& x, size_t T,
                                                             const std::vector<int32_t>& starts, size_t width) const {
  const Compressor c{width, ratio, indexed()};
  Entries<S> e;
  e.rows = c(linear(x, w.at(p + "kv_proj.weight"), T, dim, c.cols()),
             linear(x, w.at(p + "gate_proj.weight"), T, dim, c.cols()), w.at(p + "position_bias"), starts);
  e.rows = rms_norm(e.rows, w.at(p + "kv_norm.weight"), eps);
  std::vector<int32_t> position;
  for (size_t d = 0, made = 0; d < starts.size(); ++d) {
    const size_t from = static_cast<size_t>(starts[d]),
                 to = d + 1 < starts.size() ? static_cast<size_t>(starts[d + 1]) : T;
    for (size_t t = from; t < to; ++t) {
      e.first.push_back(made);
      e.end.push_back(made + (t - from + 1) / ratio);
    }
    for (size_t i = 0; i < (to - from) / ratio; ++i) position.push_back(static_cast<int32_t>(i * ratio));
    made += (to - from) / ratio;
  }
  rotate_heads(e.rows, rope(), true, position, 1, width, width - rope_dim);
  return e;
}

template <class S>
std::vector<S> CompressedAttention::latent(const Tensors<S>& w, const std::string& p, const std::vector<S>& x,
                                           size_t T) const {
  return rms_norm(linear(x, w.at(p + "q_a_proj.weight"), T, dim, q_lora), w.at(p + "q_a_norm.weight"), eps);
}

template <class S>
std::vector<std::vector<S>> CompressedAttention::scores(const Tensors<S>& w, const std::string& p,
                                                        const std::vector<S>& x, const std::vector<S>& cq,
                                                        const Places& at, const std::vector<int32_t>& starts) const {
  const size_t T = at.tokens();
  auto q = linear(cq, w.at(p + "q_b_proj.weight"), T, q_lora, index_heads * index_dim);
  rotate_heads(q, rope(), true, at.position, index_heads, index_dim, index_dim - rope_dim);
  const auto weight = linear(x, w.at(p + "weights_proj.weight"), T, dim, index_heads);
  const auto keys = entries(w, p + "compressor.", x, T, starts, index_dim);
  std::vector<std::vector<S>> out(T, std::vector<S>(keys.rows.size() / index_dim));
  for (size_t t = 0; t < T; ++t)
    for (size_t e = keys.first[t]; e < keys.end[t]; ++e)
      for (size_t h = 0; h < index_heads; ++h) {
        S product = 0;
        for (size_t c = 0; c < index_dim; ++c)
          product += q[(t * index_heads + h) * index_dim + c] * keys.rows[e * index_dim + c];
        if (real_part(product) > 0)
          out[t][e] += weight[t * index_heads + h] * product / std::sqrt(static_cast<double>(index_dim * index_heads));
      }
  return out;
}

template <class S>
std::vector<std::vector<size_t>> CompressedAttention::chosen(const std::vector<std::vector<S>>& score,
                                                             const Entries<S>& e) const {
  std::vector<std::vector<size_t>> out(e.first.size());
  for (size_t t = 0; t < out.size(); ++t) {
    std::vector<size_t> order(e.end[t] - e.first[t]);
    std::iota(order.begin(), order.end(), e.first[t]);
    if (indexed() && order.size() > index_topk) {
      std::stable_sort(order.begin(), order.end(),
                       [&](size_t a, size_t b) { return real_part(score[t][a]) > real_part(score[t][b]); });
      order.resize(index_topk);
      std::sort(order.begin(), order.end());
    }
    out[t] = order;
  }
  return out;
}

template <class S>
CompressedAttention::Result<S> CompressedAttention::operator()(const Tensors<S>& w, const std::string& p,
                                                               const std::vector<S>& x, const Places& at,
                                                               const std::vector<std::vector<double>>* given) const {
  const size_t T = at.tokens();
  std::vector<int32_t> starts;
  for (size_t t = 0; t < T; ++t)
    if (at.first_key[t] == static_cast<int32_t>(t)) starts.push_back(static_cast<int32_t>(t));
  const auto cq = latent(w, p, x, T);
  auto q = rms_norm(linear(cq, w.at(p + "q_b_proj.weight"), T, q_lora, heads * head_dim),
                    std::vector<S>(head_dim, S(1)), eps);
  rotate_heads(q, rope(), true, at.position, heads, head_dim, head_dim - rope_dim);
  auto kv = rms_norm(linear(x, w.at(p + "kv_proj.weight"), T, dim, head_dim), w.at(p + "kv_norm.weight"), eps);
  rotate_heads(kv, rope(), true, at.position, 1, head_dim, head_dim - rope_dim);
  Result<S> r;
  Entries<S> e;
  std::vector<std::vector<S>> score;
  if (ratio) {
    e = entries(w, p + "compressor.", x, T, starts, head_dim);
    if (indexed()) score = scores(w, p + "compressor.indexer.", x, cq, at, starts);
    r.chosen = chosen(score, e);
    kv.insert(kv.end(), e.rows.begin(), e.rows.end());
  }
  std::vector<S> o(T * heads * head_dim);
  r.target.assign(T, {});
  for (size_t t = 0; t < T; ++t) {
    std::vector<size_t> rows;
    for (size_t j = static_cast<size_t>(
             std::max<int64_t>(at.first_key[t], static_cast<int64_t>(t) - static_cast<int64_t>(window) + 1));
         j <= t; ++j)
      rows.push_back(j);
    const size_t near = rows.size();
    if (ratio)
      for (size_t c : r.chosen[t]) rows.push_back(T + c);
    r.target[t].assign(rows.size() - near, 0);
    for (size_t h = 0; h < heads; ++h) {
      S sum = std::exp(w.at(p + "sinks")[h]);
      std::vector<S> weight;
      for (size_t row : rows) {
        S s = 0;
        for (size_t c = 0; c < head_dim; ++c) s += q[(t * heads + h) * head_dim + c] * kv[row * head_dim + c];
        weight.push_back(std::exp(s / std::sqrt(static_cast<double>(head_dim))));
        sum += weight.back();
      }
      for (size_t i = 0; i < rows.size(); ++i) {
        for (size_t c = 0; c < head_dim; ++c)
          o[(t * heads + h) * head_dim + c] += weight[i] / sum * kv[rows[i] * head_dim + c];
        if (i >= near) r.target[t][i - near] += real_part(weight[i] / sum);
      }
    }
    double all = 0;
    for (double v : r.target[t]) all += v;
    for (double& v : r.target[t]) v /= all;
  }
  if (given) r.target = *given;
  for (size_t t = 0; indexed() && t < T; ++t) r.kl += divergence(r.target[t], score[t], r.chosen[t]);
  const Rope turn = rope();
  for (size_t t = 0; t < T; ++t)
    for (size_t h = 0; h < heads; ++h) {
      S* tail = o.data() + (t * heads + h) * head_dim + head_dim - rope_dim;
      const auto back = turn.rotate(std::vector<S>(tail, tail + rope_dim), -at.position[t], true);
      std::copy(back.begin(), back.end(), tail);
    }
  std::vector<S> grouped;
  const auto& o_a = w.at(p + "o_a_proj.weight");
  const size_t in = heads * head_dim / groups;
  for (size_t t = 0; t < T; ++t)
    for (size_t g = 0; g < groups; ++g)
      for (size_t i = 0; i < o_lora; ++i) {
        S sum = 0;
        for (size_t c = 0; c < in; ++c) sum += o_a[(g * o_lora + i) * in + c] * o[t * heads * head_dim + g * in + c];
        grouped.push_back(sum);
      }
  r.y = linear(grouped, w.at(p + "o_b_proj.weight"), T, groups * o_lora, dim);
  return r;
}

#define BIRKHOFF_INSTANTIATE(S)                                                    \
  template CompressedAttention::Result<S> CompressedAttention::operator()(         \
      const Tensors<S>&, const std::string&, const std::vector<S>&, const Places&, \
      const std::vector<std::vector<double>>*) const
BIRKHOFF_INSTANTIATE(double);
BIRKHOFF_INSTANTIATE(Complex);
#undef BIRKHOFF_INSTANTIATE

}  // namespace birkhoff::reference
