// Training further: LoRA in a whole model, saving, resuming, merging, and what is refused.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "checkpoint/adapter.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/hf_directory.h"
#include "infer/engine.h"
#include "io/json_file.h"
#include "support/temp_dir.h"
#include "train/further.h"

namespace birkhoff::test {
namespace {

namespace fs = std::filesystem;

// The gradient of W that a full model has at W + scale B A gives those of A and B: dB = scale dW A^T, dA = scale B^T
// dW.
TEST(Lora, GradientsInAWholeModelFollowFromThoseOfTheMergedWeights) {
  const Exec exec(2);
  for (const std::string targets : {"", "experts", "q_b_proj,kv_b_proj,down_proj,experts"}) {
    SCOPED_TRACE(targets);
    model::ModelConfig c = small_config("plain");
    SmallModel plain(c, f32_t, 5, exec), lora(c, f32_t, 5, exec);
    const model::LoraSpec spec{3, 4.5, model::lora_modules(lora.m->config, targets)};
    Arena memory(size_t{16} << 20);
    lora.m->attach_adapters(spec, true, memory);
    for (const auto& p : lora.m->adapters)
      for (int64_t i = 0; i < p.size(); ++i)
        lora.m->adapter_block[p.offset + i] =
            static_cast<float>(0.3 * Rng(4, static_cast<uint64_t>(p.offset)).normal(static_cast<uint64_t>(i)));
    lora.m->refresh(exec);
    const auto set = model::choose_trainable(*lora.m, {});
    std::vector<float> block(static_cast<size_t>(set.gradient_elements));
    lora.grads = model::bind_gradients(*lora.m, set, block.data());

    const auto weights_of = [&](const std::string& adapter) {
      const std::string name = adapter.substr(0, adapter.find(".lora_")) + ".weight";
      return *std::find_if(plain.m->parameters.begin(), plain.m->parameters.end(),
                           [&](const auto& p) { return p.name == name; });
    };
    const float s = spec.scale();
    for (size_t i = 0; i < lora.m->adapters.size(); i += 2) {
      const auto &a = lora.m->adapters[i], &b = lora.m->adapters[i + 1];
      const auto w = weights_of(a.name);
      ASSERT_EQ(w.rows, b.rows);
      ASSERT_EQ(w.cols, a.cols);
      for (int64_t r = 0; r < w.rows; ++r)
        for (int64_t k = 0; k < w.cols; ++k)
          for (int64_t j = 0; j < spec.rank; ++j)
            plain.m->block[w.offset + r * w.cols + k] += s * lora.m->adapter_block[b.offset + r * spec.rank + j] *
                                                         lora.m->adapter_block[a.offset + j * a.cols + k];
    }
    plain.m->refresh(exec);

    const auto parts = batch(1, further_config());
    const auto& data = parts[0];
    const layers::TokenContext ctx{data.position, data.first_key, data.segment_start, data.sequence_start};
    model::LossOptions loss;
    loss.scale = 1.f / 48;
    const double want_loss = plain.step(exec, data.ids, data.labels, ctx, loss).sums.cross_entropy;
    lora.kept.reset();
    lora.scratch.reset();
    lora.tape = model::reserve_tape(lora.kept, *lora.m, 48, model::Tape::Keep::for_backward);
    model::forward(exec, *lora.m, data.ids, ctx, lora.tape, lora.scratch);
    const double got_loss =
        model::backward(exec, *lora.m, data.ids, data.labels, ctx, lora.tape, loss, lora.grads, lora.scratch)
            .sums.cross_entropy;
    EXPECT_NEAR(got_loss, want_loss, 1e-5 * want_loss);

    for (size_t i = 0; i < lora.m->adapters.size(); i += 2) {
      const auto &a = lora.m->adapters[i], &b = lora.m->adapters[i + 1];
      const auto w = weights_of(a.name);
      std::vector<double> d_a(static_cast<size_t>(a.size())), d_b(static_cast<size_t>(b.size()));
      for (int64_t r = 0; r < w.rows; ++r)
        for (int64_t k = 0; k < w.cols; ++k)
          for (int64_t j = 0; j < spec.rank; ++j) {
            const double dw = static_cast<double>(s) * plain.grad_block[w.offset + r * w.cols + k];
            d_a[static_cast<size_t>(j * a.cols + k)] += dw * lora.m->adapter_block[b.offset + r * spec.rank + j];
            d_b[static_cast<size_t>(r * spec.rank + j)] += dw * lora.m->adapter_block[a.offset + j * a.cols + k];
          }
      const auto got = [&](const std::string& name) {
        const auto* p = set.find(name);
        return std::vector<double>(block.begin() + p->state, block.begin() + p->state + p->info.size());
      };
      ASSERT_GT(largest(d_a), 0) << a.name;
      expect_close(got(a.name), d_a, 2e-4 * largest(d_a), a.name);
      expect_close(got(b.name), d_b, 2e-4 * largest(d_b), b.name);
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

std::string save(train::TrainState& s, const std::string& run, int64_t step) {
  fs::create_directories(run + "/checkpoints");
  return checkpoint::save_checkpoint(run, step, s.model(), train::run_config_to_json(s.config()),
                                     {s.moment1(), s.moment2(), s.moment_elements(), {{"step", step}}, {}, "base"});
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

// A base model, an adapter trained over it, and the weights that both make together.
class Adapter : public testing::Test {
 protected:
  void make(const std::string& targets) {
    train::RunConfig c = lora_config(targets);
    train::TrainState s(c, 2);
    s.initialise();
    fs::create_directories(base);
    checkpoint::save_weights(base, s.model(), model::config_to_json(c.model), f32_t);
    steps(s, 0, 12);
    checkpoint_ = save(s, run, 12);
    fs::create_directories(merged);
    for (const auto& p : s.model().parameters) merge(s, p);
    checkpoint::save_weights(merged, s.model(), model::config_to_json(c.model), f32_t);
    for (int i = 0; i < 40; ++i) ids.push_back(static_cast<int32_t>(Rng(8).bits(static_cast<uint64_t>(i)) % 23));
  }
  static void merge(train::TrainState& s, const model::ParameterInfo& p) {
    const std::string module = p.name.substr(0, p.name.rfind('.'));
    const auto *a = s.trainable().find(module + ".lora_A.weight"), *b = s.trainable().find(module + ".lora_B.weight");
    if (!a) return;
    for (int64_t r = 0; r < p.rows; ++r)
      for (int64_t k = 0; k < p.cols; ++k) {
        double sum = 0;
        for (int64_t j = 0; j < 3; ++j) sum += static_cast<double>(b->weight[r * 3 + j]) * a->weight[j * p.cols + k];
        s.model().block[p.offset + r * p.cols + k] += static_cast<float>(2 * sum);
      }
  }
  std::vector<double> logits(const std::string& model, const std::string& adapter = "") const {
    infer::EngineOptions o;
    o.compute = "fp32", o.threads = 2, o.max_positions = 64, o.adapter = adapter;
    const infer::Engine engine(model, o);
    std::vector<double> out;
    engine.full_logits(ids,
                       [&](int64_t, std::span<const float> row) { out.insert(out.end(), row.begin(), row.end()); });
    infer::Session session(engine, 64);
    std::span<const float> last;
    for (const int32_t id : ids) last = session.feed({&id, 1});
    const std::vector<double> fed(last.begin(), last.end()),
        full(out.end() - static_cast<std::ptrdiff_t>(last.size()), out.end());
    expect_close(fed, full, 1e-4 * largest(full), "through the cache");
    return out;
  }
  TempDir dir;
  std::string base = dir / "base", run = dir / "run", merged = dir / "merged", checkpoint_;
  std::vector<int32_t> ids;
};

TEST_F(Adapter, BesideTheWeightsIsAsMergedIntoThem) {
  for (const char* targets : {"", "kv_b_proj,experts"}) {
    SCOPED_TRACE(targets);
    ids.clear();
    for (const auto& d : {base, run, merged}) fs::remove_all(d);
    make(targets);
    const auto want = logits(merged), without = logits(base);
    // Two fp32 computations of one network of two layers: some ten roundings of each hidden value.
    const double limit = 64 * 0x1p-24 * largest(want) * std::sqrt(20.0);
    expect_close(logits(base, run), want, limit, "adapter of the run over the base");
    expect_close(logits(base, checkpoint_ + "/adapter"), want, limit, "adapter directory over the base");
    expect_close(logits(run), want, limit, "the run itself");
    double moved = 0;
    for (size_t i = 0; i < want.size(); ++i) moved = std::max(moved, std::abs(want[i] - without[i]));
    EXPECT_GT(moved, 100 * limit) << "an adapter that does nothing proves nothing";
  }
}

TEST_F(Adapter, MergingGivesTheSumOfBoth) {
  make("q_b_proj,experts");
  const train::RunConfig c = further_config();
  train::TrainState got(c, 1), want(c, 1);
  checkpoint::load_weights(base, got.model());
  checkpoint::load_weights(merged, want.model());
  const checkpoint::AdapterFiles adapter(run, c.model);
  int changed = 0;
  for (const auto& p : got.model().parameters) {
    for (int64_t first = 0; first < p.rows; first += 7)  // in pieces
      changed += adapter.add_to(
          p.name, first,
          Mat(got.model().block + p.offset + first * p.cols, f32_t, std::min<int64_t>(7, p.rows - first), p.cols));
    const float *g = got.model().block + p.offset, *w = want.model().block + p.offset;
    expect_close({g, g + p.size()}, {w, w + p.size()}, 0x1p-23, p.name);
  }
  EXPECT_GT(changed, 0);
}

TEST_F(Adapter, IsWrittenAsPeftReadsIt) {
  make("q_b_proj,gate_proj,experts");
  const nlohmann::json j = io::read_json(run + "/adapter/adapter_config.json");
  EXPECT_EQ(j["peft_type"], "LORA");
  EXPECT_EQ(j["r"], 3);
  EXPECT_EQ(j["lora_alpha"], 6);
  EXPECT_EQ(j["base_model_name_or_path"], "base");
  EXPECT_EQ(j["target_modules"], (std::vector<std::string>{"q_b_proj"}))
      << "PEFT takes any gate_proj of a model with experts for theirs";
  EXPECT_EQ(j["target_parameters"],
            (std::vector<std::string>{"mlp.gate_proj.weight", "shared_experts.gate_proj.weight"}))
      << "gate_proj.weight alone would reach the experts";
  const io::SafetensorsFile file(run + "/adapter/adapter_model.safetensors");
  const auto* e = file.find("base_model.model.model.layers.0.self_attn.q_b_proj.lora_A.weight");
  ASSERT_TRUE(e);
  EXPECT_EQ(e->shape, (std::vector<int64_t>{3, 11}));
  EXPECT_FALSE(file.find("base_model.model.model.layers.1.mlp.experts.0.gate_proj.lora_A.weight"));
  EXPECT_TRUE(io::SafetensorsFile(run + "/adapter/expert_adapters.safetensors")
                  .find("base_model.model.model.layers.1.mlp.experts.0.gate_proj.lora_A.weight"));
}

TEST_F(Adapter, WhatDoesNotFitIsRefusedByName) {
  make("q_b_proj,o_proj");
  const std::string other = dir / "other";
  const Exec exec(1);
  model::ModelConfig c = small_config();
  c.q_lora_rank = 12;
  SmallModel wide(c, f32_t, 1, exec);
  fs::create_directories(other);
  checkpoint::save_weights(other, *wide.m, model::config_to_json(wide.m->config), f32_t);
  EXPECT_NE(error_of([&] { logits(other, run); }).find("expected [3,12], file has [3,11]"), std::string::npos);

  const auto with = [&](const char* key, const nlohmann::json& value) {
    const std::string copy = dir / "copy";
    fs::remove_all(copy);
    fs::copy(fs::canonical(run + "/adapter"), copy);
    nlohmann::json j = io::read_json(copy + "/adapter_config.json");
    j[key] = value;
    io::write_json(copy + "/adapter_config.json", j);
    return error_of([&] { logits(base, copy); });
  };
  EXPECT_NE(with("r", 0).find("a rank of 1 to"), std::string::npos);
  EXPECT_NE(with("r", int64_t{1} << 62).find("a rank of 1 to"), std::string::npos);
  EXPECT_NE(with("use_dora", true).find("use_dora"), std::string::npos);
  EXPECT_NE(with("target_parameters", {"mlp.experts.gate_up_proj"}).find("target_parameters"), std::string::npos);
  EXPECT_NE(with("peft_type", "IA3").find("IA3"), std::string::npos);
  EXPECT_NE(with("r", 4).find("expected [4,"), std::string::npos) << "the matrices have rank 3";
  EXPECT_EQ(with("lora_dropout", 0.1), "") << "of training only";
  EXPECT_NE(error_of([&] { logits(base, base); }).find("adapter_config.json"), std::string::npos);
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

TEST(Init, ModelSettingsComeWithTheWeights) {
  const model::ModelConfig from = further_config().model;
  const auto same = train::make_run_config({{"hidden_size", 20}, {"seq_len", 24}}, {"lr=0.5"}, &from);
  EXPECT_EQ(same.model.hidden_size, 20);
  EXPECT_EQ(same.train.lr, 0.5);
  const std::string e = error_of([&] { train::make_run_config({{"seq_len", 24}}, {"hidden_size=40"}, &from); });
  EXPECT_NE(e.find("hidden_size: the model has 20, asked for 40"), std::string::npos) << e;
}

}  // namespace
}  // namespace birkhoff::test
