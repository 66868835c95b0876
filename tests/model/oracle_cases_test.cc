// Logits, hidden states, expert choices and gradients of the reference checkpoints, fp32, on every instruction set.
#include <gtest/gtest.h>

#include "model/config/model_type.h"
#include "support/matrix.h"
#include "support/model_case.h"

namespace birkhoff {
namespace {

using test::case_dir;

std::vector<std::string> oracle_cases() {
  return test::cases_of({"deepseek_v3", "deepseek_v32", "deepseek_v2_lite", "llama_gqa", "deepseek_v2", "llama",
                         "llama_linear_rope", "llama3_rope", "qwen2", "qwen2_yarn", "qwen3", "qwen3_yarn", "llama_bf16",
                         "mixtral", "deepseek_moe", "deepseek_v3_fp8"});
}

class OracleCase : public testing::TestWithParam<std::string> {};

void compare_experts(const io::SafetensorsFile& f, const model::Tape& t, int64_t seq_len) {
  for (size_t l = 0; l < t.layers.size(); ++l) {
    const std::string key = "experts." + std::to_string(l);
    const auto* moe = std::get_if<layers::Moe::Saved>(&t.layers[l].ffn);
    ASSERT_EQ(moe != nullptr, f.find(key + ".index") != nullptr) << key;
    if (!moe) continue;
    const auto index = test::golden(f, key + ".index"), weight = test::golden(f, key + ".weight");
    const int64_t K = moe->routing.weights.cols;
    for (int64_t i = 0; i < seq_len * K; ++i) {
      ASSERT_EQ(moe->routing.index[static_cast<size_t>(i)], static_cast<int32_t>(index[static_cast<size_t>(i)]))
          << key << " slot " << i;
      EXPECT_NEAR(moe->routing.weights.f32(i / K)[i % K], weight[static_cast<size_t>(i)], 1e-4) << key << " slot " << i;
    }
  }
}

TEST_P(OracleCase, LogitsHiddenStatesAndGradients) {
  const std::string name = GetParam();
  const nlohmann::json golden = io::read_json(case_dir(name) + "/golden.json");
  const io::SafetensorsFile f(case_dir(name) + "/golden.safetensors");
  const auto shape = test::golden_shape(f, "input_ids");
  const test::Tokens tokens(test::golden(f, "input_ids"), shape[0], shape[1]);
  for (const Isa isa : test::machine_isas()) {
    SCOPED_TRACE(isa_name(isa));
    test::IsaScope scope(isa);
    const Exec exec(2);
    auto loaded = test::load_case(name, DType::f32, exec);
    model::Model& m = loaded->m;
    Arena kept(size_t{64} << 20), scratch(size_t{64} << 20), grad_memory(size_t{16} << 20);
    model::Tape tape = model::reserve_tape(kept, m, tokens.size(), model::Tape::Keep::for_backward);
    model::forward({exec, m, tokens.context(), scratch}, tokens.ids, tape);

    test::Owned logits(tokens.size(), m.config.vocab_size);
    model::logits(exec, m, tape.hidden, logits);
    test::expect_close(logits.values(), test::golden(f, "logits"), golden["tolerance"], name + " logits");
    compare_experts(f, tape, shape[1]);
    if (m.residual.kind == ops::ResidualKind::plain) {
      for (int64_t l = 0; l <= m.config.num_hidden_layers; ++l) {
        const auto want = test::golden(f, "hidden." + std::to_string(l));
        const Mat x = tape.x[static_cast<size_t>(2 * l)].row_block(0, shape[1]);
        std::vector<double> got(x.f32(), x.f32() + x.size());
        test::expect_close(got, want, 1e-5 * std::max(1.0, test::largest(want)), "hidden." + std::to_string(l));
      }
    }

    if (!golden.contains("grad_tolerance")) continue;
    model::Weights grads(m.config);
    model::bind(grads, grad_memory.take<float>(model::parameter_elements(m.parameters)));
    std::vector<int32_t> labels(tokens.ids.size(), kIgnoreLabel);
    for (int64_t i = 0; i < tokens.size(); ++i)
      if ((i + 1) % shape[1]) labels[static_cast<size_t>(i)] = tokens.ids[static_cast<size_t>(i + 1)];
    model::LossOptions loss;
    loss.scale = static_cast<float>(1.0 / static_cast<double>(shape[0] * (shape[1] - 1)));
    const model::LossResult r =
        model::backward({exec, m, tokens.context(), scratch}, tokens.ids, labels, tape, loss, grads);
    EXPECT_NEAR(r.sums.cross_entropy * loss.scale, test::golden(f, "loss")[0], 1e-5);
    grads.for_each([&](const std::string& ours, Mat g, layers::Role) {
      const std::string tensor = model::find_model_type(m.config.model_type).file_names(m.config, ours).front();
      if (!f.find("grad." + tensor)) return;
      ASSERT_TRUE(golden["grad_tolerance"].contains(tensor)) << tensor;
      test::expect_close(std::vector<double>(g.f32(), g.f32() + g.size()), test::golden(f, "grad." + tensor),
                         golden["grad_tolerance"][tensor], "grad." + tensor);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, OracleCase, testing::ValuesIn(oracle_cases()), [](const auto& p) { return p.param; });

}  // namespace
}  // namespace birkhoff
