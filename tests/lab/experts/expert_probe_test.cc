// Models without their best experts: what is chosen, and what it costs.
#include "lab/experts/expert_probe.h"

#include <algorithm>
#include <map>

#include "lab/experts/expert_models.h"

namespace birkhoff::test {
namespace {

using lab::ProbeData;
using model::RoutingProbe;

std::map<std::string, eval::Likelihood> losses(const std::string& dir, const ProbeData& data,
                                               const std::vector<RoutingProbe>& probes) {
  std::map<std::string, eval::Likelihood> out;
  lab::run_probes(
      dir, fp32(), data, probes,
      [&](const RoutingProbe& p, const eval::Likelihood& l) {
        out[std::to_string(p.masked) + (p.replace_shared ? "s" : "")] = l;
      },
      [](int64_t, int64_t) {});
  return out;
}

TEST(ExpertProbe, NoneDisabledIsTheLossOfEval) {
  for (const auto& [name, config] : router_configs()) {
    TempDir dir;
    write_model(dir / "m", config);
    const std::string path = dir.file("text", random_text(600));
    const infer::Engine engine(dir / "m", fp32());
    const auto want = eval::window_likelihood(engine, {path}, 64, false);
    const auto got = losses(dir / "m", {{path}, 64, false}, {{0, false}, {1, false}});
    EXPECT_EQ(got.at("0").nats, want.nats) << name;
    EXPECT_EQ(got.at("0").tokens, want.tokens) << name;
    EXPECT_NE(got.at("1").nats, want.nats) << name;
  }
}

// The experts that every routed layer chose, against its scores: none of the R most probable.
TEST(ExpertProbe, DisabledExpertsAreNotChosen) {
  for (const auto& [name, config] : router_configs()) {
    TempDir dir;
    write_model(dir / "m", config);
    const std::string path = dir.file("text", random_text(300));
    const int64_t disabled = config.n_group > 1 ? 1 : 4;
    infer::EngineOptions options = fp32();
    options.probe.masked = disabled;
    const infer::Engine engine(dir / "m", options);
    const auto layers = model::expert_layers(engine.model()).routed;
    ASSERT_FALSE(layers.empty()) << name;
    int64_t seen = 0;
    eval::over_windows(
        engine, eval::windows(engine, infer::TextModel(engine), {path}, 64, false), model::Tape::Keep::nothing,
        [&](const Exec& exec, const data::Batch& b, const model::Tape& tape, Arena&) {
          if (exec.dry()) return;
          for (const int64_t l : layers) {
            const ops::Routing& r = std::get<layers::Moe::Saved>(tape.layers[static_cast<size_t>(l)].ffn).routing;
            for (int64_t t = 0; t < static_cast<int64_t>(b.ids.size()); ++t) {
              for (int64_t k = 0; k < 3; ++k, ++seen) {
                const float score = r.scores.f32(t)[r.index[static_cast<size_t>(t * 3 + k)]];
                ASSERT_GE(std::count_if(r.scores.f32(t), r.scores.f32(t) + 8, [&](float s) { return s > score; }),
                          disabled)
                    << name << " layer " << l << " token " << t;
              }
            }
          }
        });
    EXPECT_EQ(seen, static_cast<int64_t>(layers.size()) * 4 * 64 * 3) << name;  // 4 windows
  }
}

TEST(ExpertProbe, ReplacedSharedExpertsAreAModelWithoutThem) {
  for (const int64_t shared : {1, 2}) {
    TempDir dir;
    model::ModelConfig with = router_configs()[0].config, without;
    with.n_shared_experts = shared;
    without = with;
    without.n_shared_experts = 0, without.num_experts_per_tok += shared;
    std::map<std::string, std::vector<float>> values;
    write_model(dir / "with", with, [&](model::Model& m) {
      m.weights.for_each(
          [&](const std::string& n, Mat w, layers::Role) { values[n].assign(w.f32(), w.f32() + w.size()); });
    });
    write_model(dir / "without", without, [&](model::Model& m) {
      m.weights.for_each([&](const std::string& n, Mat w, layers::Role) {
        std::copy(values.at(n).begin(), values.at(n).end(), w.f32());
      });
    });
    const std::string path = dir.file("text", random_text(300));
    const infer::Engine engine(dir / "without", fp32());
    const auto got = losses(dir / "with", {{path}, 64, false}, lab::probe_list({}, true));
    EXPECT_EQ(got.at("0s").nats, eval::window_likelihood(engine, {path}, 64, false).nats);
    EXPECT_NE(got.at("0s").nats, got.at("0").nats);
  }
}

TEST(ExpertProbe, TablesOfExpertsStay) {
  TempDir dir;
  write_model(dir / "m", wide_v4_config());
  infer::EngineOptions options = fp32();
  options.probe = {2, true};
  const infer::Engine engine(dir / "m", options);
  const auto spec = [&](size_t l) { return std::get<layers::Moe::Spec>(engine.model().blocks[l].ffn); };
  EXPECT_EQ(model::expert_layers(engine.model()).hashed, std::vector<int64_t>{0});
  EXPECT_EQ(model::expert_layers(engine.model()).routed, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(spec(0).rule.active, 3);
  EXPECT_EQ(spec(0).rule.masked, 0);
  EXPECT_GT(spec(0).shared_inter, 0);
  EXPECT_EQ(spec(1).rule.active, 4);
  EXPECT_EQ(spec(1).rule.masked, 2);
  EXPECT_EQ(spec(1).shared_inter, 0);
}

TEST(ExpertProbe, ListsNoneFirstAndEachOnce) {
  const auto list = lab::probe_list({2, 0, 1, 2}, true);
  std::vector<int64_t> masked;
  for (const RoutingProbe& p : list) masked.push_back(p.masked);
  EXPECT_EQ(masked, (std::vector<int64_t>{0, 2, 1, 0}));
  EXPECT_FALSE(list[0].on());
  EXPECT_TRUE(list[3].replace_shared);
}

TEST(ExpertProbe, ReportsProgressOverAll) {
  TempDir dir;
  write_model(dir / "m", router_configs()[0].config);
  const std::string path = dir.file("text", random_text(200));
  std::vector<int64_t> done;
  lab::run_probes(
      dir / "m", fp32(), {{path}, 64, false}, lab::probe_list({1}, false),
      [](const RoutingProbe&, const eval::Likelihood&) {},
      [&](int64_t n, int64_t all) {
        EXPECT_EQ(all, 6);
        done.push_back(n);
      });
  EXPECT_EQ(done, (std::vector<int64_t>{1, 2, 3, 4, 5, 6}));
}

TEST(ExpertProbe, Refuses) {
  TempDir dir;
  const auto configs = router_configs();
  write_model(dir / "greedy", configs[0].config);
  write_model(dir / "grouped", configs[1].config);
  model::ModelConfig alone = configs[0].config, dense = alone, hashed = wide_v4_config();
  alone.n_shared_experts = 0;
  dense.n_routed_experts = 0, dense.n_shared_experts = 0, dense.moe_intermediate_size = 0,
  dense.first_k_dense_replace = 0;
  hashed.num_hash_layers = 3;
  write_model(dir / "alone", alone);
  write_model(dir / "dense", dense);
  write_model(dir / "hashed", hashed);
  const std::string path = dir.file("text", random_text(200));
  const ProbeData data{{path}, 64, false};
  expect_error(
      [&] {
        losses(dir / "greedy", data, {{0, false}, {6, false}});
      },
      {"6 experts disabled and 3 chosen", "8 experts", "at most 5"});
  expect_error(
      [&] {
        losses(dir / "grouped", data, {{2, false}});
      },
      {"2 experts disabled and 3 chosen", "4 experts of the 2 groups (of 4)", "at most 1"});
  expect_error([&] { losses(dir / "greedy", data, {{-1, false}}); }, {"-1"});
  expect_error([&] { losses(dir / "alone", data, {{0, true}}); }, {"n_shared_experts is 0"});
  expect_error([&] { losses(dir / "dense", data, {{1, false}}); }, {"no experts", "n_routed_experts 0"});
  expect_error([&] { losses(dir / "hashed", data, {{1, false}}); }, {"all 3 expert layers", "by token"});
}

}  // namespace
}  // namespace birkhoff::test
