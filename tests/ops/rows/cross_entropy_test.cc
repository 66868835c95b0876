#include "ops/rows/cross_entropy.h"

#include "reference/complex_step.h"
#include "reference/cross_entropy.h"
#include "support/matrix.h"

namespace birkhoff::test {
namespace {

struct LossCase {
  int64_t tokens, dim, vocab;
  DType t;
  Owned hidden, head;
  std::vector<int32_t> labels;

  LossCase(int64_t n, int64_t d, int64_t v, DType type)
      : tokens(n), dim(d), vocab(v), t(type), hidden(random(n, d, 1, 1.0, type)), head(random(v, d, 2, 0.5, type)) {
    const Rng rng(3);
    for (int64_t i = 0; i < n; ++i)
      labels.push_back(i % 5 == 3
                           ? kIgnoreLabel
                           : static_cast<int32_t>(rng.bits(static_cast<uint64_t>(i)) % static_cast<uint64_t>(v)));
  }
  // Logits are fp32 sums of dim products.
  double logit_error() const {
    return sum_tolerance(dim, largest(hidden.values()) * largest(head.values()), f32_t, f32_t);
  }
  double largest_logit() const {
    return std::sqrt(static_cast<double>(dim)) * largest(hidden.values()) * largest(head.values());
  }
};

struct LossResult {
  ops::LossSums forward, backward;
  std::vector<float> per_token;
  Owned d_hidden, d_head;
};

constexpr float kScale = 0.37f, kZ = 0.05f;

LossResult run(const LossCase& c, int threads, const Owned& d_head_before) {
  const Exec exec(threads);
  Arena arena(size_t{96} << 20);
  const auto head_t = ops::Packed::take(arena, c.t, c.dim, c.vocab),
             head = ops::Packed::take(arena, c.t, c.vocab, c.dim);
  ops::pack_transposed(exec, c.head, head_t);
  ops::pack(exec, c.head, head);
  LossResult r{{}, {}, std::vector<float>(c.labels.size()), random(c.tokens, c.dim, 8, 1.0, c.t), d_head_before};
  const size_t before = arena.used();
  r.forward = ops::cross_entropy_forward(exec, c.hidden, head_t, c.labels, r.per_token, arena);
  r.backward =
      ops::cross_entropy_backward(exec, c.hidden, {head_t, head}, c.labels, {kScale, kZ}, r.d_hidden, r.d_head, arena);
  EXPECT_EQ(arena.used(), before);
  return r;
}

void check(const LossCase& c, bool gradients) {
  SCOPED_TRACE(std::to_string(c.tokens) + "x" + std::to_string(c.dim) + "x" + std::to_string(c.vocab) + " " +
               dtype_name(c.t));
  const Owned before = random(c.vocab, c.dim, 6);
  const LossResult got = run(c, 1, before);
  const auto x = c.hidden.values(), w = c.head.values();
  const auto want = reference::cross_entropy(x, w, c.labels, c.dim);
  // Per token: two logits, and a sum of vocab terms in fp32.
  const double per_token =
      2 * c.logit_error() + 0x1p-24 * (std::sqrt(static_cast<double>(c.vocab)) + 8 + c.largest_logit());
  const double n = static_cast<double>(c.tokens);
  EXPECT_EQ(got.forward.tokens, want.tokens);
  EXPECT_NEAR(got.forward.cross_entropy, want.cross_entropy, n * per_token);
  EXPECT_NEAR(got.forward.z, want.z, n * per_token * 2 * (c.largest_logit() + std::log(static_cast<double>(c.vocab))));
  EXPECT_EQ(got.forward.cross_entropy, got.backward.cross_entropy);
  EXPECT_EQ(got.forward.z, got.backward.z);
  EXPECT_EQ(got.forward.tokens, got.backward.tokens);
  expect_close({got.per_token.begin(), got.per_token.end()}, want.per_token,
               per_token + 0x1p-24 * largest(want.per_token), "per token");
  if (!gradients) return;

  const auto loss = [&](const auto& h, const auto& m) {
    const auto r = reference::cross_entropy(h, m, c.labels, c.dim);
    return static_cast<double>(kScale) * (r.cross_entropy + static_cast<double>(kZ) * r.z);
  };
  const auto want_dh = reference::complex_step(x, [&](const auto& z) { return loss(z, reference::lift(w)); });
  auto want_dw = reference::complex_step(w, [&](const auto& z) { return loss(reference::lift(x), z); });
  const auto start = before.values();
  for (size_t i = 0; i < want_dw.size(); ++i) want_dw[i] += start[i];
  // A gradient of a logit is at most `peak`; those of one token sum to at most 2 peak in absolute value. Each is off by
  // the rounding to the storage type and by the softmax's relative error.
  const double peak = kScale * (1 + 2 * kZ * (c.largest_logit() + std::log(static_cast<double>(c.vocab))));
  const double e = (c.t == f32_t ? 0 : 0x1p-9) + 2 * per_token;
  expect_close(got.d_hidden.values(), want_dh,
               2 * peak * largest(w) * e + (c.t == f32_t ? 0x1p-24 : 0x1p-9) * largest(want_dh), "d_hidden");
  expect_close(got.d_head.values(), want_dw, n * peak * largest(x) * e + 0x1p-22 * largest(want_dw), "d_head");
}

TEST(CrossEntropy, MatchesSpecification) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    SCOPED_TRACE(isa_name(isa));
    for (DType t : {f32_t, bf16_t}) {
      for (int64_t vocab : {1, 2, 15, 16, 17, 63, 64, 65, 257}) check(LossCase(9, 8, vocab, t), vocab <= 65);
      check(LossCase(0, 8, 20, t), true);
      check(LossCase(1, 1, 3, t), true);
      check(LossCase(33, 24, 40, t), true);
      check(LossCase(ops::kLossChunk + 3, 16, 50, t), false);  // more than one chunk
    }
  }
}

// An objective of its own for every token: value -a sin(log p) + b (log p)^2 with a, b of the token, so that the slope
// is neither constant nor of one sign; with and without the z-loss beside it.
TEST(CrossEntropy, ObjectiveOfEveryToken) {
  const auto a = [](int64_t t) { return 0.3 - 0.2 * static_cast<double>(t % 4); };
  const auto b = [](int64_t t) { return 0.05 * static_cast<double>(t % 3); };
  for (Isa isa : machine_isas())
    for (float z : {0.f, kZ}) {
      const IsaScope scope(isa);
      SCOPED_TRACE(std::string(isa_name(isa)) + " z " + std::to_string(z));
      const LossCase c(33, 8, 20, f32_t);
      ops::HeadLoss loss{kScale, z};
      loss.objective = [&](int64_t t, double log_p) {
        return ops::TokenValue{-a(t) * std::sin(log_p) + b(t) * log_p * log_p,
                               -a(t) * std::cos(log_p) + 2 * b(t) * log_p};
      };
      const Exec exec(2);
      Arena arena(size_t{16} << 20);
      const auto head_t = ops::Packed::take(arena, c.t, c.dim, c.vocab),
                 head = ops::Packed::take(arena, c.t, c.vocab, c.dim);
      ops::pack_transposed(exec, c.head, head_t);
      ops::pack(exec, c.head, head);
      Owned d_hidden(c.tokens, c.dim), d_head(c.vocab, c.dim);
      const ops::LossSums sums =
          ops::cross_entropy_backward(exec, c.hidden, {head_t, head}, c.labels, loss, d_hidden, d_head, arena);

      const auto x = c.hidden.values(), w = c.head.values();
      const auto value = [&](const auto& h, const auto& m) {
        const auto r = reference::cross_entropy(h, m, c.labels, c.dim);
        auto sum = r.z * static_cast<double>(kScale) * static_cast<double>(z);
        for (size_t t = 0; t < c.labels.size(); ++t) {
          if (c.labels[t] == kIgnoreLabel) continue;
          const auto i = static_cast<int64_t>(t);
          const auto log_p = -r.per_token[t];
          sum += -a(i) * std::sin(log_p) + b(i) * log_p * log_p;
        }
        return sum;
      };
      const auto want_dh = reference::complex_step(x, [&](const auto& v) { return value(v, reference::lift(w)); });
      const auto want_dw = reference::complex_step(w, [&](const auto& v) { return value(reference::lift(x), v); });
      // As above: logits off by logit_error; a slope changes by at most (a + 2 b) of that, and weighs twice.
      const double per_token =
          2 * c.logit_error() + 0x1p-24 * (std::sqrt(static_cast<double>(c.vocab)) + 8 + c.largest_logit());
      const double range = c.largest_logit() + std::log(static_cast<double>(c.vocab));
      const double slope = 0.3 + 2 * 0.1 * 2 * range + kScale * 2 * static_cast<double>(z) * range, e = 2 * per_token;
      const double n = static_cast<double>(c.tokens);
      EXPECT_NEAR(sums.objective, value(x, w) - static_cast<double>(kScale) * static_cast<double>(z) * sums.z,
                  n * slope * per_token);
      expect_close(d_hidden.values(), want_dh, 2 * slope * largest(w) * e + 0x1p-24 * largest(want_dh), "d_hidden");
      expect_close(d_head.values(), want_dw, n * slope * largest(x) * e + 0x1p-22 * largest(want_dw), "d_head");
    }
}

// The objective that next-token prediction is gives its bits.
TEST(CrossEntropy, NextTokenPredictionIsAnObjective) {
  for (DType t : {f32_t, bf16_t}) {
    const LossCase c(ops::kLossChunk + 9, 16, 50, t);
    const Exec exec(2);
    Arena arena(size_t{16} << 20);
    const auto head_t = ops::Packed::take(arena, c.t, c.dim, c.vocab),
               head = ops::Packed::take(arena, c.t, c.vocab, c.dim);
    ops::pack_transposed(exec, c.head, head_t);
    ops::pack(exec, c.head, head);
    Owned d_hidden[2] = {Owned(c.tokens, c.dim, t), Owned(c.tokens, c.dim, t)},
          d_head[2] = {Owned(c.vocab, c.dim), Owned(c.vocab, c.dim)};
    ops::HeadLoss own{kScale, kZ};
    const double scale = static_cast<double>(kScale);
    own.objective = [scale](int64_t, double log_p) { return ops::TokenValue{-scale * log_p, -scale}; };
    const ops::LossSums plain = ops::cross_entropy_backward(exec, c.hidden, {head_t, head}, c.labels, {kScale, kZ},
                                                            d_hidden[0], d_head[0], arena),
                        given = ops::cross_entropy_backward(exec, c.hidden, {head_t, head}, c.labels, own, d_hidden[1],
                                                            d_head[1], arena);
    EXPECT_EQ(plain.objective, given.objective);
    EXPECT_TRUE(d_hidden[0].same_bytes(d_hidden[1]));
    EXPECT_TRUE(d_head[0].same_bytes(d_head[1]));
  }
}

TEST(CrossEntropy, ThreadsDoNotChangeBits) {
  for (DType t : {f32_t, bf16_t}) {
    const LossCase c(ops::kLossChunk * 2 + 17, 32, 300, t);
    const Owned zero(c.vocab, c.dim);
    const LossResult one = run(c, 1, zero), three = run(c, 3, zero);
    EXPECT_EQ(one.forward.cross_entropy, three.forward.cross_entropy);
    EXPECT_EQ(one.forward.z, three.forward.z);
    EXPECT_EQ(one.per_token, three.per_token);
    EXPECT_TRUE(one.d_hidden.same_bytes(three.d_hidden));
    EXPECT_TRUE(one.d_head.same_bytes(three.d_head));
  }
}

// A token's loss and gradient do not depend on the tokens around it, even across chunks.
TEST(CrossEntropy, TokensAreIndependent) {
  const LossCase all(ops::kLossChunk + 40, 16, 70, bf16_t);
  const Owned zero(all.vocab, all.dim);
  const LossResult whole = run(all, 2, zero);
  LossCase part(45, 16, 70, bf16_t);
  const int64_t from = ops::kLossChunk - 5;
  part.head = all.head;
  for (int64_t i = 0; i < part.hidden.size(); ++i) part.hidden.set(i, all.hidden.at(from * all.dim + i));
  part.labels.assign(all.labels.begin() + from, all.labels.begin() + from + 45);
  const LossResult few = run(part, 1, zero);
  for (int64_t t = 0; t < 45; ++t)
    EXPECT_EQ(few.per_token[static_cast<size_t>(t)], whole.per_token[static_cast<size_t>(from + t)]);
  for (int64_t i = 0; i < few.d_hidden.size(); ++i)
    ASSERT_EQ(few.d_hidden.at(i), whole.d_hidden.at(from * all.dim + i));
}

TEST(CrossEntropy, IgnoredAndExtreme) {
  LossCase c(6, 8, 20, f32_t);
  const Owned zero(20, 8);
  std::fill(c.labels.begin(), c.labels.end(), kIgnoreLabel);
  const LossResult none = run(c, 1, zero);
  EXPECT_EQ(none.forward.tokens, 0);
  EXPECT_EQ(none.backward.cross_entropy, 0.0);
  EXPECT_EQ(largest(none.d_hidden.values()), 0.0);
  EXPECT_EQ(largest(none.d_head.values()), 0.0);

  LossCase far(6, 8, 20, f32_t);  // logits of thousands: the softmax is one-hot, nothing overflows
  for (int64_t i = 0; i < far.hidden.size(); ++i) far.hidden.set(i, 3000 * far.hidden.at(i));
  const LossResult r = run(far, 1, zero);
  EXPECT_TRUE(std::isfinite(r.forward.cross_entropy) && std::isfinite(r.forward.z));
  for (double x : r.d_hidden.values()) ASSERT_TRUE(std::isfinite(x));
  far.labels[0] = 20;
  EXPECT_THROW(run(far, 1, zero), ContractViolation);
}

TEST(CrossEntropy, DryRunPlansTheScratch) {
  const Exec exec = Exec::dry_run(2);
  Arena arena = Arena::measuring();
  const Mat hidden = arena.mat(bf16_t, 4096, 64), d_head = arena.mat(f32_t, 1000, 64);
  const auto head_t = ops::Packed::take(arena, bf16_t, 64, 1000), head = ops::Packed::take(arena, bf16_t, 1000, 64);
  const std::vector<int32_t> labels(4096);
  const size_t before = arena.used();
  ops::cross_entropy_backward(exec, hidden, {head_t, head}, labels, {1.f}, hidden, d_head, arena);
  EXPECT_EQ(arena.used(), before);
  EXPECT_GE(arena.peak(), before + static_cast<size_t>(ops::kLossChunk) * 1000 * 4);
}

}  // namespace
}  // namespace birkhoff::test
