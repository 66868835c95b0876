// LoRA in a whole model: gradients, training, resuming, and what is refused.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "checkpoint/checkpoint.h"
#include "support/temp_dir.h"
#include "train/further_runs.h"

namespace birkhoff::test {
namespace {

// A and B beside the matrix W of a model.
struct AdapterOf {
  model::ParameterInfo a, b, w;
};
std::vector<AdapterOf> adapters_of(const model::Model& lora) {
  std::vector<AdapterOf> all;
  for (size_t i = 0; i < lora.adapters.size(); i += 2) {
    const model::ParameterInfo &a = lora.adapters[i], &b = lora.adapters[i + 1];
    const std::string name = a.name.substr(0, a.name.find(".lora_")) + ".weight";
    const auto w =
        std::find_if(lora.parameters.begin(), lora.parameters.end(), [&](const auto& p) { return p.name == name; });
    EXPECT_TRUE(w->rows == b.rows && w->cols == a.cols) << name;
    all.push_back({a, b, *w});
  }
  return all;
}

// f(element of W, of A, of B) over all products that make scale B A.
template <class F>
void over_products(const AdapterOf& m, int64_t rank, F&& f) {
  for (int64_t r = 0; r < m.w.rows; ++r)
    for (int64_t k = 0; k < m.w.cols; ++k)
      for (int64_t j = 0; j < rank; ++j) f(r * m.w.cols + k, j * m.a.cols + k, r * rank + j);
}

// Adapters with lively values, and a `plain` model with the weights that they make: W + scale B A.
void attach_lively_adapters(SmallModel& lora, const model::LoraSpec& spec, Arena& memory, SmallModel& plain,
                            const Exec& exec) {
  lora.m->attach_adapters(spec, true, memory);
  float* block = lora.m->adapter_block;
  for (const auto& p : lora.m->adapters)
    for (int64_t i = 0; i < p.size(); ++i)
      block[p.offset + i] =
          static_cast<float>(0.3 * Rng(4, static_cast<uint64_t>(p.offset)).normal(static_cast<uint64_t>(i)));
  lora.m->refresh(exec);
  for (const AdapterOf& m : adapters_of(*lora.m))
    over_products(m, spec.rank, [&](int64_t w, int64_t a, int64_t b) {
      plain.m->block[m.w.offset + w] += spec.scale() * block[m.b.offset + b] * block[m.a.offset + a];
    });
  plain.m->refresh(exec);
}

// The gradient of W that a full model has at W + scale B A gives those of A and B: dB = scale dW A^T, dA = scale B^T
// dW.
TEST(Lora, GradientsInAWholeModelFollowFromThoseOfTheMergedWeights) {
  const Exec exec(2);
  const data::Batch data = batch(1, further_config())[0];
  const layers::TokenContext ctx{data.position, data.first_key, data.segment_start, data.sequence_start};
  model::LossOptions loss;
  loss.scale = 1.f / 48;
  const std::pair<std::string, model::ModelConfig> models[] = {
      {"", small_config("plain")},
      {"experts", small_config("plain")},
      {"q_b_proj,kv_b_proj,down_proj,experts", small_config("plain")},
      {"", small_qwen_config()}};
  for (const auto& [targets, config] : models) {
    SCOPED_TRACE(targets + (config.qkv_bias ? " beside biases" : ""));
    SmallModel plain(config, f32_t, 5, exec), lora(config, f32_t, 5, exec);
    const model::LoraSpec spec{3, 4.5, model::lora_modules(lora.m->config, targets)};
    Arena memory(size_t{16} << 20);
    attach_lively_adapters(lora, spec, memory, plain, exec);
    const auto set = model::choose_trainable(*lora.m, {});
    std::vector<float> block(static_cast<size_t>(set.gradient_elements));
    lora.grads = model::bind_gradients(*lora.m, set, block.data());

    const double want_loss = plain.step(exec, data.ids, data.labels, ctx, loss).sums.cross_entropy;
    lora.tape = model::reserve_tape(lora.kept, *lora.m, 48, model::Tape::Keep::for_backward);
    model::forward({exec, *lora.m, ctx, lora.scratch}, data.ids, lora.tape);
    const double got_loss =
        model::backward({exec, *lora.m, ctx, lora.scratch}, data.ids, data.labels, lora.tape, loss, lora.grads)
            .sums.cross_entropy;
    EXPECT_NEAR(got_loss, want_loss, 1e-5 * want_loss);

    for (const AdapterOf& m : adapters_of(*lora.m)) {
      std::vector<double> d_a(static_cast<size_t>(m.a.size())), d_b(static_cast<size_t>(m.b.size()));
      over_products(m, spec.rank, [&](int64_t w, int64_t a, int64_t b) {
        const double dw = static_cast<double>(spec.scale()) * plain.grad_block[m.w.offset + w];
        d_a[static_cast<size_t>(a)] += dw * lora.m->adapter_block[m.b.offset + b];
        d_b[static_cast<size_t>(b)] += dw * lora.m->adapter_block[m.a.offset + a];
      });
      const auto got = [&](const std::string& name) {
        const auto* p = set.find(name);
        return std::vector<double>(block.begin() + p->state, block.begin() + p->state + p->info.size());
      };
      ASSERT_GT(largest(d_a), 0) << m.a.name;
      expect_close(got(m.a.name), d_a, 2e-4 * largest(d_a), m.a.name);
      expect_close(got(m.b.name), d_b, 2e-4 * largest(d_b), m.b.name);
    }
  }
}

TEST(Lora, OnlyAdaptersMoveAndTheLossFalls) {
  for (const char* targets : {"", "experts"}) {
    train::TrainState s(lora_config(targets), 2);
    s.initialise();
    const auto before = tensors(s);
    const double first = s.evaluate(batch(0, s.config()));
    for (int64_t i = 0; i < 20; ++i) take_step(s, i, batch(0, s.config()));
    EXPECT_LT(s.evaluate(batch(0, s.config())), first - 0.02) << targets;
    for (const auto& [name, values] : tensors(s))
      EXPECT_EQ(values != before.at(name), name.find(".lora_") != std::string::npos) << name;
    EXPECT_FALSE(s.model().adapters.empty());
  }
}

TEST(Lora, BiasesAreNoModules) {
  const std::vector<std::string> modules = model::lora_candidates(small_qwen_config());
  EXPECT_EQ(modules.size(), 2u * 7);
  EXPECT_EQ(modules[0], "model.layers.0.self_attn.q_proj");
  train::RunConfig c = lora_config();
  c.model = small_qwen_config();
  model::validate(c.model);
  train::TrainState s(c, 2);
  s.initialise();
  const auto before = tensors(s);
  steps(s, 0, 3);
  for (const auto& [name, values] : tensors(s))
    EXPECT_EQ(values != before.at(name), name.find(".lora_") != std::string::npos) << name;
}

TEST(Lora, TheFirstStepStartsFromTheModelItself) {
  train::TrainState plain(further_config(), 1), lora(lora_config(), 1);
  plain.initialise();
  lora.initialise();
  EXPECT_EQ(plain.evaluate(batch(0, plain.config())), lora.evaluate(batch(0, lora.config()))) << "B starts at zero";
}

TEST(Lora, TheSameBitsForAnyThreadsAndRecomputePolicy) {
  train::RunConfig c = lora_config("q_b_proj,o_proj,gate_proj,experts");
  c.train.dtype = DType::bf16;
  train::TrainState one(c, 1);
  one.initialise();
  steps(one, 0, 4);
  for (const auto policy : {model::Recompute::none, model::Recompute::site, model::Recompute::layer}) {
    c.train.recompute = policy;
    train::TrainState other(c, 3);
    other.initialise();
    steps(other, 0, 4);
    EXPECT_EQ(tensors(other), tensors(one)) << name_of(policy);
  }
}

TEST(Lora, ResumeIsBitExact) {
  for (const char* targets : {"", "experts,o_proj"}) {
    const TempDir dir;
    train::RunConfig c = lora_config(targets);
    c.train.trainable = "norm\\.weight";
    train::TrainState straight(c, 2);
    straight.initialise();
    steps(straight, 0, 3);
    const std::string at = save(straight, dir / "run", 3);
    steps(straight, 3, 6);
    train::TrainState resumed(c, 2);
    checkpoint::TrainerState saved{resumed.moment1(), resumed.moment2(), resumed.moment_elements(), {}};
    checkpoint::load_checkpoint(at, resumed.model(), saved);
    resumed.model().refresh(resumed.exec());
    steps(resumed, 3, 6);
    EXPECT_EQ(tensors(resumed), tensors(straight)) << targets;
  }
}

TEST(Lora, SettingsThatContradictAreRefused) {
  const nlohmann::json model = model::config_to_json(further_config().model);
  const auto refused = [&](std::vector<std::string> set) {
    set.emplace_back("seq_len=24");
    return error_of([&] { train::make_run_config(model, set); });
  };
  EXPECT_EQ(refused({"lora.rank=2"}), "");
  EXPECT_EQ(refused({"lora.rank=2", "lora.targets=[\"q_b_proj\",\"experts\"]"}), "");
  EXPECT_NE(refused({"lora.rank=0", "lora.targets=q_b_proj"}).find("lora.rank"), std::string::npos);
  EXPECT_NE(refused({"lora.rank=-1"}).find("lora.rank"), std::string::npos);
  EXPECT_NE(refused({"lora.rank=2", "lora.targets=q_b_prj"}).find("did you mean \"q_b_proj\""), std::string::npos);
  EXPECT_NE(refused({"lora.rank=2", "lora.alpha=-1"}).find("lora.alpha"), std::string::npos);
}

}  // namespace
}  // namespace birkhoff::test
