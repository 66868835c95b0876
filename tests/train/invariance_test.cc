// What must not matter in training: the number of threads, the recompute policy.
#include <gtest/gtest.h>

#include <cstring>

#include "support/batches.h"
#include "support/sanitized.h"
#include "support/small_model.h"
#include "train/train_state.h"

namespace birkhoff::test {
namespace {

train::RunConfig run_config(const std::string& residual, const std::string& dtype, const std::string& recompute) {
  train::RunConfig c;
  const bool form = residual == "lite" || residual == "kron";  // of H_res
  c.model = residual == "v4" ? wide_v4_config()
            : form           ? with_form(wide_config("mhc"), residual.c_str())
                             : wide_config(residual);
  if (residual == "v4") c.model.num_nextn_predict_layers = 1, c.train.mtp_loss = 0.3;
  model::validate(c.model);
  c.train.seq_len = 80, c.train.batch_size = 4, c.train.grad_accum = 2;
  c.train.dtype = model::named<DType>("dtype", dtype);
  c.train.recompute = model::named<model::Recompute>("recompute", recompute);
  c.train.lr = 3e-3, c.train.steps = 20, c.train.warmup_steps = 3;
  c.train.aux_sequence = 1e-3, c.train.aux_expert = 1e-3, c.train.z_loss = 1e-4, c.train.bias_update_speed = 1e-3;
  return c;
}

struct Curve {
  std::vector<double> losses, others;
  std::vector<float> weights;
  bool operator==(const Curve& o) const {
    return losses == o.losses && others == o.others &&
           std::memcmp(weights.data(), o.weights.data(), weights.size() * sizeof(float)) == 0;
  }
};

Curve curve_of(const train::RunConfig& c, int threads, int steps) {
  train::TrainState state(c, threads);
  state.initialise();
  Curve curve;
  for (int i = 0; i < steps; ++i) {
    const int64_t rows = c.train.batch_size / c.train.grad_accum;
    std::vector<data::Batch> parts;
    for (int64_t p = 0; p < c.train.grad_accum; ++p)
      parts.push_back(batch(static_cast<uint64_t>(i * c.train.grad_accum + p), rows, c.train.seq_len));
    const train::StepOutcome s = take_step(state, i, parts);
    curve.losses.push_back(s.loss);
    for (double v : {s.z_loss, s.aux_loss, s.grad_norm, s.mtp_loss.value_or(0), s.indexer_loss.value_or(0)})
      curve.others.push_back(v);
  }
  curve.weights.assign(state.model().block, state.model().block + model::parameter_elements(state.model().parameters));
  return curve;
}

void expect_learning(const Curve& c) {
  EXPECT_LT(c.losses.back(), 0.8 * c.losses.front()) << "a run that learns nothing proves nothing";
}

class Training : public testing::TestWithParam<std::tuple<std::string, std::string>> {};

TEST_P(Training, TwentyStepsTheSameBitsForAnyThreadsAndPolicy) {
  const auto& [residual, dtype] = GetParam();
  const int steps = sanitized() ? 2 : 20;  // of which every one runs the same code
  const Curve one = curve_of(run_config(residual, dtype, "none"), 1, steps);
  if (!sanitized()) expect_learning(one);
  for (int threads : sanitized() ? std::vector<int>{3} : std::vector<int>{2, 3, 7})
    EXPECT_TRUE(curve_of(run_config(residual, dtype, "none"), threads, steps) == one) << threads << " threads";
  for (const char* policy : {"site", "layer"})
    EXPECT_TRUE(curve_of(run_config(residual, dtype, policy), 2, steps) == one) << "recompute " << policy;
}

TEST_P(Training, OnEveryInstructionSet) {
  const auto& [residual, dtype] = GetParam();
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    const Curve one = curve_of(run_config(residual, dtype, "none"), 1, 2);
    EXPECT_TRUE(curve_of(run_config(residual, dtype, "layer"), 3, 2) == one) << isa_name(isa);
  }
}

TEST_P(Training, Muon) {
  const auto& [residual, dtype] = GetParam();
  train::RunConfig c = run_config(residual, dtype, "none");
  c.train.optimizer = train::Optimizer::muon;
  const int steps = sanitized() ? 2 : 4;
  const Curve one = curve_of(c, 1, steps);
  EXPECT_TRUE(curve_of(c, 3, steps) == one);
}

INSTANTIATE_TEST_SUITE_P(Kinds, Training,
                         testing::Combine(testing::Values("plain", "hc", "mhc", "lite", "kron", "v4"),
                                          testing::Values("fp32", "bf16")),
                         [](const auto& p) { return std::get<0>(p.param) + "_" + std::get<1>(p.param); });

}  // namespace
}  // namespace birkhoff::test
