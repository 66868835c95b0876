// Multi-token prediction against the reference: logits and loss of the module, gradients of loss + 0.3 mtp_loss; and
// against differences.
#include <gtest/gtest.h>

#include "model/config/model_type.h"
#include "support/matrix.h"
#include "support/model_case.h"
#include "support/small_model.h"

namespace birkhoff::test {
namespace {

constexpr const char* kCase = "deepseek_v3_mtp";

TEST(Mtp, ReferenceCheckpoint) {
  const nlohmann::json golden_json = io::read_json(case_dir(kCase) + "/golden.json");
  const io::SafetensorsFile f(case_dir(kCase) + "/golden.safetensors");
  const auto shape = golden_shape(f, "input_ids");
  const Tokens tokens(golden(f, "input_ids"), shape[0], shape[1]);
  std::vector<int32_t> labels(tokens.ids.size(), kIgnoreLabel);
  for (int64_t i = 0; i < tokens.size(); ++i)
    if ((i + 1) % shape[1]) labels[static_cast<size_t>(i)] = tokens.ids[static_cast<size_t>(i + 1)];
  for (const Isa isa : machine_isas()) {
    SCOPED_TRACE(isa_name(isa));
    IsaScope scope(isa);
    const Exec exec(2);
    auto loaded = load_case(kCase, DType::f32, exec);
    model::Model& m = loaded->m;
    ASSERT_EQ(m.weights.mtp.size(), 1u);
    for (auto policy : {model::Recompute::none, model::Recompute::site, model::Recompute::layer}) {
      Arena kept(size_t{64} << 20), scratch(size_t{64} << 20), grad_memory(size_t{16} << 20);
      model::Tape tape = model::reserve_tape(kept, m, tokens.size(), model::Tape::Keep::for_backward, policy);
      auto rows = model::mtp_rows(tokens.ids, labels, tokens.context(), 1);
      const int64_t targets = model::mtp_targets(rows[0]);
      EXPECT_EQ(targets, shape[0] * (shape[1] - 2));
      tape.mtp = model::reserve_mtp(kept, m, std::move(rows), policy);
      model::forward({exec, m, tokens.context(), scratch}, tokens.ids, tape);
      model::Weights grads(m.config);
      model::bind(grads, grad_memory.take<float>(model::parameter_elements(m.parameters)));
      model::LossOptions loss;
      loss.scale = static_cast<float>(1.0 / static_cast<double>(shape[0] * (shape[1] - 1)));
      loss.mtp_scale = {static_cast<float>(0.3 / static_cast<double>(targets))};
      const model::LossResult r =
          model::backward({exec, m, tokens.context(), scratch}, tokens.ids, labels, tape, loss, grads);
      ASSERT_EQ(r.mtp.size(), 1u);
      EXPECT_EQ(r.mtp[0].tokens, targets);
      EXPECT_NEAR(r.mtp[0].cross_entropy / static_cast<double>(targets), golden(f, "mtp_loss")[0], 1e-5);

      ASSERT_EQ(tape.mtp[0].hidden.rows, shape[0] * (shape[1] - 1));
      Owned logits(tape.mtp[0].hidden.rows, m.config.vocab_size);
      model::logits(exec, m, tape.mtp[0].hidden, logits);
      expect_close(logits.values(), golden(f, "mtp_logits"), golden_json["mtp"]["tolerance"], "mtp_logits");

      size_t compared = 0;
      grads.for_each([&](const std::string& name, Mat g, layers::Role role) {
        if (role == layers::Role::router_bias) return;
        ASSERT_TRUE(f.find("mtp_grad." + name)) << name;
        ++compared;
        expect_close(std::vector<double>(g.f32(), g.f32() + g.size()), golden(f, "mtp_grad." + name),
                     golden_json["mtp"]["grad_tolerance"][name], "mtp_grad." + name);
      });
      EXPECT_GT(compared, 40u);
    }
  }
}

// Documents in one row: a module never reads or predicts across a boundary, ignored labels stay ignored.
TEST(Mtp, TargetsStayInTheirDocument) {
  const std::vector<int32_t> position{0, 1, 2, 0, 1, 2, 3}, first_key{0, 0, 0, 3, 3, 3, 3}, starts{0, 3};
  const layers::TokenContext ctx{position, first_key, starts, starts};
  const std::vector<int32_t> labels{11, 12, 13, 21, kIgnoreLabel, 23, 24};
  const std::vector<int32_t> ids{10, 11, 12, 20, 21, 22, 23};
  const auto rows = model::mtp_rows(ids, labels, ctx, 4);
  EXPECT_EQ(rows[0].ids, (std::vector<int32_t>{11, 12, 21, 22, 23}));
  EXPECT_EQ(rows[0].labels, (std::vector<int32_t>{12, 13, kIgnoreLabel, 23, 24}));
  EXPECT_EQ(rows[0].position, (std::vector<int32_t>{0, 1, 0, 1, 2}));
  EXPECT_EQ(rows[0].first_key, (std::vector<int32_t>{0, 0, 2, 2, 2}));
  EXPECT_EQ(rows[0].segment_start, (std::vector<int32_t>{0, 2}));
  EXPECT_EQ(rows[0].sequence_start, (std::vector<int32_t>{0, 2}));
  EXPECT_EQ(model::mtp_targets(rows[0]), 4);  // rows 0, 1 | 4, 5; row 3 would predict the ignored one
  EXPECT_EQ(rows[1].ids, (std::vector<int32_t>{12, 22, 23}));
  EXPECT_EQ(model::mtp_targets(rows[1]), 3);
  EXPECT_EQ(rows[2].ids, (std::vector<int32_t>{23}));  // the first document is over, and no sequence any more
  EXPECT_EQ(rows[2].sequence_start, (std::vector<int32_t>{0}));
  EXPECT_EQ(rows[3].tokens(), 0);
}

// Two documents in one row of 19 tokens.
struct TwoDocuments {
  std::vector<int32_t> ids, labels, position, first_key, start{0, 9};
  TwoDocuments() {
    for (int32_t i = 0; i < 19; ++i) {
      ids.push_back((i * 7 + 3) % 23);
      position.push_back(i < 9 ? i : i - 9);
      first_key.push_back(i < 9 ? 0 : 9);
    }
    labels.assign(ids.begin() + 1, ids.end());
    labels.push_back(4);
    labels[8] = kIgnoreLabel;
  }
  layers::TokenContext context() const { return {position, first_key, start, start}; }
};

// Two modules in a chain, gradient along a random direction against central differences of the loss that the model
// itself reports.
void check_chain(model::ModelConfig c) {
  c.num_nextn_predict_layers = 2;
  const Exec exec(1);
  SmallModel s(c, DType::f32, 5, exec);
  const TwoDocuments t;
  const layers::TokenContext ctx = t.context();
  model::LossOptions loss;
  loss.scale = 1.f / 18;
  loss.mtp_scale = {0.4f / 16, 0.3f / 14};
  const auto run = [&] {
    s.kept.reset();
    s.scratch.reset();
    std::fill(s.grad_block, s.grad_block + s.elements, 0.f);
    s.tape = model::reserve_tape(s.kept, *s.m, 19, model::Tape::Keep::for_backward);
    s.tape.mtp = model::reserve_mtp(s.kept, *s.m, model::mtp_rows(t.ids, t.labels, ctx, 2), model::Recompute::none);
    model::forward({exec, *s.m, ctx, s.scratch}, t.ids, s.tape);
    const auto r = model::backward({exec, *s.m, ctx, s.scratch}, t.ids, t.labels, s.tape, loss, s.grads);
    return r.sums.cross_entropy * static_cast<double>(loss.scale) +
           r.mtp[0].cross_entropy * static_cast<double>(loss.mtp_scale[0]) +
           r.mtp[1].cross_entropy * static_cast<double>(loss.mtp_scale[1]);
  };
  run();
  const std::vector<float> gradient = s.gradient_bits();
  size_t checked = 0;
  for (const auto& p : s.m->parameters) {
    // A step could change the choice; an indexer makes nothing but one.
    if (p.role == layers::Role::router_bias || p.role == layers::Role::router || p.role == layers::Role::expert_table ||
        p.name.find(".indexer.") != std::string::npos)
      continue;
    const Rng rng(3, static_cast<uint64_t>(p.offset));
    std::vector<float> direction(static_cast<size_t>(p.size())),
        kept_values(s.m->block + p.offset, s.m->block + p.offset + p.size());
    double along = 0, norm = 0;
    for (size_t i = 0; i < direction.size(); ++i) {
      direction[i] = static_cast<float>(rng.normal(i));
      along += static_cast<double>(direction[i]) * static_cast<double>(gradient[static_cast<size_t>(p.offset) + i]);
      norm += static_cast<double>(direction[i]) * static_cast<double>(direction[i]);
    }
    const double h = 2e-3 / std::sqrt(norm);
    const auto at = [&](double step) {
      for (size_t i = 0; i < direction.size(); ++i)
        s.m->block[static_cast<size_t>(p.offset) + i] = kept_values[i] + static_cast<float>(step) * direction[i];
      s.m->refresh(exec);
      return run();
    };
    const double difference = (at(h) - at(-h)) / (2 * h);
    std::copy(kept_values.begin(), kept_values.end(), s.m->block + p.offset);
    s.m->refresh(exec);
    // fp32 losses near 6: rounding about 1e-6 of them over a step of 4e-3 of unit length.
    EXPECT_NEAR(along / std::sqrt(norm), difference / std::sqrt(norm), 3e-3) << p.name;
    checked += std::abs(along) / std::sqrt(norm) > 3e-3;
  }
  EXPECT_GT(checked, 20u);
}

TEST(Mtp, ChainOfModulesAgainstDifferences) { check_chain(small_config("plain")); }
TEST(Mtp, ChainOverStreamsAgainstDifferences) { check_chain(small_config("mhc")); }
TEST(Mtp, ChainOfV4ModulesAgainstDifferences) {
  model::ModelConfig c = small_v4_config();
  c.compress_ratios.push_back(0);
  c.index_topk = 64, c.num_experts_per_tok = c.n_routed_experts;  // no choice that a step could change
  check_chain(c);
}

// models.md G.8: what a module of V4 reads, in double, from the streams before their collapse.
TEST(Mtp, JoinOfStreams) {
  model::ModelConfig c = small_v4_config();
  c.num_nextn_predict_layers = 1;
  const Exec exec(2);
  SmallModel s(c, DType::f32, 5, exec);
  const int64_t T = 13, D = c.hidden_size, n = c.hc_mult;
  std::vector<int32_t> ids, position, first_key(T, 0), start{0};
  for (int32_t i = 0; i < T; ++i) ids.push_back((i * 5 + 2) % 23), position.push_back(i);
  std::vector<int32_t> labels(ids.begin() + 1, ids.end());
  labels.push_back(1);
  const layers::TokenContext ctx{position, first_key, start, start};
  s.tape = model::reserve_tape(s.kept, *s.m, T, model::Tape::Keep::for_backward);
  s.tape.mtp = model::reserve_mtp(s.kept, *s.m, model::mtp_rows(ids, labels, ctx, 1), model::Recompute::none);
  model::forward({exec, *s.m, ctx, s.scratch}, ids, s.tape);
  model::forward_mtp({exec, *s.m, ctx, s.scratch}, ids, model::mtp_source(*s.m, s.tape, s.tape.hidden), s.tape.mtp);
  const auto w = s.values();
  const std::string p = "model.layers.3.";
  const auto normed = [&](const float* x, const std::vector<double>& weight) {
    double squares = 0;
    for (int64_t d = 0; d < D; ++d) squares += static_cast<double>(x[d]) * static_cast<double>(x[d]);
    std::vector<double> y;
    for (int64_t d = 0; d < D; ++d)
      y.push_back(weight[static_cast<size_t>(d)] * static_cast<double>(x[d]) /
                  std::sqrt(squares / static_cast<double>(D) + c.rms_norm_eps));
    return y;
  };
  const auto product = [&](const std::vector<double>& weight, const std::vector<double>& x, int64_t row) {
    double sum = 0;
    for (int64_t d = 0; d < D; ++d) sum += weight[static_cast<size_t>(row * D + d)] * x[static_cast<size_t>(d)];
    return sum;
  };
  for (int64_t t = 0; t + 1 < T; ++t) {
    const auto e = normed(s.m->weights.embed.f32(ids[static_cast<size_t>(t + 1)]), w.at(p + "enorm.weight"));
    for (int64_t i = 0; i < n; ++i) {
      const auto h = normed(s.tape.x.back().f32(t) + i * D, w.at(p + "hnorm.weight"));
      for (int64_t d = 0; d < D; ++d)
        EXPECT_NEAR(s.tape.mtp[0].stack.x[0].f32(t)[i * D + d],
                    product(w.at(p + "e_proj.weight"), e, d) + product(w.at(p + "h_proj.weight"), h, d), 2e-5)
            << t << " " << i << " " << d;
    }
  }
}

}  // namespace
}  // namespace birkhoff::test
