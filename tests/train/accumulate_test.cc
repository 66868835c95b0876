// The two halves of a step: which objective, and what its parts weigh.
#include <gtest/gtest.h>

#include <cstring>

#include "support/batches.h"
#include "support/small_model.h"

namespace birkhoff::test {
namespace {

constexpr int64_t kAccumulated = 40;

train::RunConfig accumulate_config() {
  train::RunConfig c;
  c.model = wide_config("plain");
  model::validate(c.model);
  c.train.seq_len = kAccumulated, c.train.batch_size = 16, c.train.dtype = DType::f32, c.train.lr = 1e-3,
  c.train.steps = 6;
  return c;
}

std::vector<float> weights_after(const train::RunConfig& c, const std::vector<data::Batch>& parts,
                                 const train::Objective& objective, train::StepOutcome* outcome = nullptr) {
  train::TrainState state(c, 2);
  state.initialise();
  state.accumulate(parts, objective);
  const train::StepOutcome s = state.apply(0);
  if (outcome) *outcome = s;
  const model::Model& m = state.model();
  return {m.block, m.block + model::parameter_elements(m.parameters)};
}

// Rows [first, first + rows) of a batch.
data::Batch rows_of(const data::Batch& b, int64_t first, int64_t rows) {
  data::Batch part;
  part.rows = rows, part.seq_len = b.seq_len;
  const auto from = static_cast<int32_t>(first * b.seq_len), to = static_cast<int32_t>((first + rows) * b.seq_len);
  for (int32_t t = from; t < to; ++t) {
    const auto i = static_cast<size_t>(t);
    part.ids.push_back(b.ids[i]);
    part.labels.push_back(b.labels[i]);
    part.position.push_back(b.position[i]);
    part.first_key.push_back(b.first_key[i] - from);
  }
  for (int32_t s : b.segment_start)
    if (s >= from && s < to) part.segment_start.push_back(s - from);
  for (int32_t s : b.sequence_start)
    if (s >= from && s < to) part.sequence_start.push_back(s - from);
  return part;
}

// A weight for every token is a mask when it is 0 or the same: the objective finds the tokens of every part, beyond the
// head's chunks of 512 tokens.
TEST(Accumulate, AnObjectiveThatIsAMaskTrainsAsIgnoredLabelsDo) {
  train::RunConfig c = accumulate_config();
  const data::Batch whole = test::batch(1, 16, kAccumulated);
  const std::vector<data::Batch> parts{rows_of(whole, 0, 14), rows_of(whole, 14, 2)};
  const auto learnt = [](size_t part, int64_t t) { return part == 0 ? t % 7 < 3 || t > 520 : t % 2 == 0; };
  std::vector<data::Batch> masked = parts;
  int64_t counted = 0;
  for (size_t p = 0; p < masked.size(); ++p)
    for (size_t t = 0; t < masked[p].labels.size(); ++t) {
      if (!learnt(p, static_cast<int64_t>(t)))
        masked[p].labels[t] = kIgnoreLabel;
      else
        ++counted;
    }
  const auto scale = static_cast<double>(static_cast<float>(1.0 / static_cast<double>(counted)));
  train::StepOutcome want, got;
  const auto expected = weights_after(c, masked, nullptr, &want);
  const auto weighted = weights_after(
      c, parts,
      [&](size_t part, int64_t t, double log_p) {
        const double w = learnt(part, t) ? scale : 0;
        return ops::TokenValue{-w * log_p, -w};
      },
      &got);
  EXPECT_EQ(want.tokens, counted);
  EXPECT_EQ(got.tokens, static_cast<int64_t>(whole.ids.size()));
  EXPECT_NEAR(got.objective, want.loss, 1e-6 * want.loss);
  EXPECT_EQ(got.grad_norm, want.grad_norm);
  EXPECT_EQ(weighted, expected);
}

// A balance loss over sequences is their mean, however the parts cut them: three and one train as four at once.
TEST(Accumulate, SequencesWeighAlikeInPartsOfUnequalSize) {
  train::RunConfig c = accumulate_config();
  c.train.batch_size = 4;
  c.train.aux_sequence = 0.5;
  const data::Batch whole = test::batch(2, 4, kAccumulated);
  train::StepOutcome one, two;
  const auto at_once = weights_after(c, {whole}, nullptr, &one);
  const auto in_parts = weights_after(c, {rows_of(whole, 0, 3), rows_of(whole, 3, 1)}, nullptr, &two);
  EXPECT_NEAR(one.aux_loss, two.aux_loss, 1e-6 * one.aux_loss);
  EXPECT_NEAR(one.grad_norm, two.grad_norm, 1e-5 * one.grad_norm);
  train::RunConfig without = c;
  without.train.aux_sequence = 0;
  train::StepOutcome none;
  weights_after(without, {whole}, nullptr, &none);
  EXPECT_GT(std::abs(none.grad_norm - one.grad_norm), 1e-3 * one.grad_norm) << "the balance loss must be felt";
}

TEST(Accumulate, ApplyComesBetween) {
  train::TrainState state(accumulate_config(), 1);
  state.initialise();
  EXPECT_THROW(state.apply(0), ContractViolation);
  state.accumulate({test::batch(1, 2, kAccumulated)});
  EXPECT_THROW(state.accumulate({test::batch(1, 2, kAccumulated)}), ContractViolation);
  state.apply(0);
  state.accumulate({test::batch(1, 2, kAccumulated)});
}

}  // namespace
}  // namespace birkhoff::test
