#include "ops/rows/cross_entropy.h"

#include <algorithm>
#include <cmath>

#include "kernels/rows/cross_entropy.h"
#include "ops/gemm/weight_grad.h"

namespace birkhoff::ops {
namespace {

// Log-sum-exp and losses of the tokens of one chunk.
struct TokenLoss {
  double lse, cross_entropy, objective;
};

void check_inputs(CMat hidden, const Packed& head_t, std::span<const int32_t> labels) {
  BK_CHECK_EQ(head_t.k, hidden.cols);
  BK_CHECK(head_t.n > 0 && head_t.dtype == hidden.dtype);
  BK_CHECK_EQ(static_cast<int64_t>(labels.size()), hidden.rows);
}

void check_labels(std::span<const int32_t> labels, int64_t vocab) {
  for (int32_t label : labels) BK_CHECK(label == kIgnoreLabel || (label >= 0 && label < vocab));
}

int64_t logit_rows_per_task(int64_t vocab) { return std::clamp<int64_t>(32768 / vocab, 1, 64); }

double log_sum_exp_of(float max, float sum) { return static_cast<double>(max) + std::log(static_cast<double>(sum)); }

// The loss of one row of logits; exps (or null) receives e^(logit - max), and 1 / sum of them is returned in
// inverse_sum.
TokenLoss token_loss_of(const float* logits, int64_t vocab, int32_t label, float* exps, double* inverse_sum) {
  float max, sum;
  kernels::cross_entropy_kernels().row_stats(logits, vocab, exps, &max, &sum);
  const double lse = log_sum_exp_of(max, sum);
  if (inverse_sum) *inverse_sum = 1.0 / static_cast<double>(sum);
  return {lse, lse - static_cast<double>(logits[label]), 0};
}

// Adds a chunk's tokens one after another: the sum does not depend on threads, nor on where chunks are cut.
void add_losses(std::span<const int32_t> labels, const TokenLoss* losses, LossSums& sums) {
  for (size_t t = 0; t < labels.size(); ++t) {
    if (labels[t] == kIgnoreLabel) continue;
    sums.cross_entropy += losses[t].cross_entropy;
    sums.z += losses[t].lse * losses[t].lse;
    sums.objective += losses[t].objective;
    ++sums.tokens;
  }
}

TokenValue value_of(const HeadLoss& loss, int64_t t, double log_p) {
  if (loss.objective) return loss.objective(t, log_p);
  const auto scale = static_cast<double>(loss.scale);
  return {-scale * log_p, -scale};
}

// Turns the row of logits of token t into the gradient, slope (onehot - softmax) + 2 scale z_coef lse softmax, stored
// as bf16 or fp32 over the logits themselves.
TokenLoss replace_by_gradient(float* logits, int64_t vocab, int64_t t, int32_t label, const HeadLoss& loss,
                              DType dtype) {
  const auto& kernel = kernels::cross_entropy_kernels();
  const bool f32 = dtype == f32_t;
  if (label == kIgnoreLabel) {
    std::fill_n(static_cast<char*>(static_cast<void*>(logits)), vocab * dtype_bytes(dtype), char{0});
    return {0, 0, 0};
  }
  WorkerScratch memory;
  float* exps = memory.take<float>(vocab);
  double inverse_sum;
  TokenLoss token = token_loss_of(logits, vocab, label, exps, &inverse_sum);
  const TokenValue v = value_of(loss, t, -token.cross_entropy);
  token.objective = v.value;
  const auto scale = static_cast<double>(loss.scale);
  // The first term is zero, exactly, for next-token prediction.
  const double weight = (-v.slope - scale) + scale * (1 + 2 * static_cast<double>(loss.z_coef) * token.lse);
  const auto factor = static_cast<float>(weight * inverse_sum);
  (f32 ? kernel.scale_f32 : kernel.scale_bf16)(exps, vocab, factor, logits);
  const float at_label = exps[label] * factor + static_cast<float>(v.slope);
  if (f32)
    logits[label] = at_label;
  else
    static_cast<bf16*>(static_cast<void*>(logits))[label] = to_bf16(at_label);
  return token;
}

// Sums over the tokens, a chunk of logits at a time. token(t, logits) is the loss of a counted or ignored token, in
// tasks; after(first token, tokens, logits) follows every chunk, also of a dry pass.
template <class Token, class After>
LossSums over_chunks(const Exec& exec, CMat hidden, const Packed& head_t, std::span<const int32_t> labels,
                     Arena& scratch, Token&& token, After&& after) {
  check_inputs(hidden, head_t, labels);
  const int64_t vocab = head_t.n, step = logit_rows_per_task(vocab);
  const Mat logits = scratch.mat(f32_t, std::min(kLossChunk, hidden.rows), vocab);
  TokenLoss* losses = scratch.take<TokenLoss>(logits.rows);
  LossSums sums;
  if (!exec.dry()) check_labels(labels, vocab);
  for (int64_t first = 0; first < hidden.rows; first += kLossChunk) {
    const int64_t tokens = std::min(kLossChunk, hidden.rows - first);
    gemm(exec, hidden.row_block(first, tokens), head_t, logits.row_block(0, tokens));
    if (!exec.dry()) {
      Exec::Span span(exec, Work::loss);
      exec.parallel_for((tokens + step - 1) / step, [&](int64_t task) {
        for (int64_t t = task * step; t < std::min(tokens, (task + 1) * step); ++t)
          losses[t] = token(first + t, logits.f32(t));
      });
      add_losses(labels.subspan(static_cast<size_t>(first), static_cast<size_t>(tokens)), losses, sums);
    }
    after(first, tokens, logits);
  }
  return sums;
}

}  // namespace

double log_sum_exp(std::span<const float> logits) {
  float max, sum;
  kernels::cross_entropy_kernels().row_stats(logits.data(), static_cast<int64_t>(logits.size()), nullptr, &max, &sum);
  return log_sum_exp_of(max, sum);
}

LossSums cross_entropy_forward(const Exec& exec, CMat hidden, const Packed& head_t, std::span<const int32_t> labels,
                               std::span<float> token_loss, Arena& scratch) {
  if (!token_loss.empty()) BK_CHECK_EQ(token_loss.size(), labels.size());
  Arena::Scope scope(scratch);
  const auto loss_of = [&](int64_t t, const float* logits) {
    const auto i = static_cast<size_t>(t);
    const TokenLoss loss =
        labels[i] == kIgnoreLabel ? TokenLoss{0, 0, 0} : token_loss_of(logits, head_t.n, labels[i], nullptr, nullptr);
    if (!token_loss.empty()) token_loss[i] = static_cast<float>(loss.cross_entropy);
    return loss;
  };
  return over_chunks(exec, hidden, head_t, labels, scratch, loss_of, [](int64_t, int64_t, Mat) {});
}

LossSums cross_entropy_backward(const Exec& exec, CMat hidden, const PackedHead& head, std::span<const int32_t> labels,
                                const HeadLoss& loss, Mat d_hidden, Mat d_head, Arena& scratch) {
  const int64_t vocab = head.forward.n;
  BK_CHECK_EQ(head.backward.k, vocab);
  BK_CHECK_EQ(head.backward.n, hidden.cols);
  BK_CHECK(head.backward.dtype == hidden.dtype && d_hidden.dtype == hidden.dtype && d_head.dtype == f32_t);
  check_shape(d_hidden, hidden.rows, hidden.cols);
  check_shape(d_head, vocab, hidden.cols);
  Arena::Scope scope(scratch);
  const auto gradient_of = [&](int64_t t, float* logits) {
    return replace_by_gradient(logits, vocab, t, labels[static_cast<size_t>(t)], loss, hidden.dtype);
  };
  return over_chunks(
      exec, hidden, head.forward, labels, scratch, gradient_of, [&](int64_t first, int64_t tokens, Mat logits) {
        // bf16 gradients fill the first half of each row of logits.
        const CMat d_logits(logits.data, hidden.dtype, tokens, vocab, hidden.dtype == f32_t ? vocab : 2 * vocab);
        gemm(exec, d_logits, head.backward, d_hidden.row_block(first, tokens));
        if (d_head.data) gemm_weight_grad(exec, d_logits, hidden.row_block(first, tokens), d_head, scratch);
      });
}

}  // namespace birkhoff::ops
