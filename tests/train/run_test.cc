// The run around a stage: what it saves and keeps, what it measures, what it says; a stage that is no pre-training.
#include "train/run.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>

#include "io/json_file.h"
#include "report/run_data.h"
#include "support/batches.h"
#include "support/small_model.h"
#include "support/temp_dir.h"
#include "train/pretraining.h"

namespace birkhoff::test {
namespace {

using nlohmann::json;

train::RunConfig stage_config() {
  train::RunConfig c;
  c.model = wide_config("hc");
  model::validate(c.model);
  c.train.seq_len = 40, c.train.batch_size = 2, c.train.dtype = DType::f32, c.train.lr = 1e-3, c.train.steps = 6;
  return c;
}

// Learns by an objective of its own, a weight for every token, and keeps something beside the weights.
class Weighted : public train::Stage {
 public:
  explicit Weighted(const train::RunConfig& c) : state_(c, 1) {}
  train::TrainState& state() override { return state_; }
  std::vector<std::string> introduction() const override { return {"a stage of the test"}; }
  train::StepRecord step(int64_t i) override {
    ++taken;
    if (before_step) before_step(i);
    state_.accumulate({test::batch(static_cast<uint64_t>(i), 2, 40)}, [](size_t, int64_t t, double log_p) {
      const double weight = (t % 3 == 0 ? -0.5 : 1.0) / 80;
      return ops::TokenValue{-weight * log_p, -weight};
    });
    const train::StepRecord r = train::record_of(state_.apply(i));
    if (after_step) after_step(i);
    return r;
  }
  double evaluate(int64_t) override {
    return validation.empty() ? 1 : validation[static_cast<size_t>(next_++) % validation.size()];
  }
  std::optional<train::GainRecord> gains() override { return std::nullopt; }
  void describe(json& run) const override { run["stage"] = "weighted"; }
  json position() const override { return {{"taken", taken}}; }
  void go_on_from(const json& p) override { taken = p.at("taken"); }

  int64_t taken = 0;
  std::vector<double> validation;
  std::function<void(int64_t)> before_step, after_step;

 private:
  train::TrainState state_;
  int64_t next_ = 0;
};

struct RunOfAStage : testing::Test {
  int run(Weighted& stage, const train::RunConfig& c, bool resume = false) {
    train::RunDirectory directory(dir / "run",
                                  resume ? train::RunDirectory::Open::resume : train::RunDirectory::Open::fresh);
    train::RunSetup setup;
    setup.config = c;
    setup.resume = resume;
    setup.quiet = true;
    return train::Run(setup, directory, stage).execute(stop);
  }
  TempDir dir;
  std::atomic<bool> stop = false;
};

TEST_F(RunOfAStage, GoesOnWithWhatTheStageKept) {
  train::RunConfig c = stage_config();
  c.train.steps = 3;
  Weighted first(c);
  EXPECT_EQ(run(first, c), 0);
  c.train.steps = 6;
  Weighted second(c);
  EXPECT_EQ(run(second, c, true), 0);
  EXPECT_EQ(second.taken, 6);
  const auto records = report::read_metrics(dir / "run/metrics.jsonl");
  ASSERT_EQ(records.size(), 6u);
  EXPECT_EQ(records.back()["tokens"], 6 * 80);
  EXPECT_EQ(io::read_json(dir / "run/run.json")["stage"], "weighted");
}

TEST_F(RunOfAStage, KeepsTheBestAndTheNewest) {
  train::RunConfig c = stage_config();
  c.train.eval_every = 1, c.train.keep = 1;
  Weighted stage(c);
  stage.validation = {5, 2, 3, 4, 3, 3, 3};
  EXPECT_EQ(run(stage, c), 0);
  EXPECT_EQ(listing(dir / "run/checkpoints"), "step-2 step-6");
}

TEST_F(RunOfAStage, KeepBestOff) {
  train::RunConfig c = stage_config();
  c.train.eval_every = 1, c.train.keep = 1, c.train.keep_best = false;
  Weighted stage(c);
  stage.validation = {5, 2, 3, 4, 3, 3, 3};
  EXPECT_EQ(run(stage, c), 0);
  EXPECT_EQ(listing(dir / "run/checkpoints"), "step-6");
}

TEST_F(RunOfAStage, ACheckpointWhenOneIsLate) {
  train::RunConfig c = stage_config();
  c.train.keep = 10, c.train.checkpoint_minutes = 1e-9;
  Weighted often(c);
  EXPECT_EQ(run(often, c), 0);
  EXPECT_EQ(listing(dir / "run/checkpoints"), "step-1 step-2 step-3 step-4 step-5 step-6");
  std::filesystem::remove_all(dir / "run");
  c.train.checkpoint_minutes = 0;
  Weighted never(c);
  EXPECT_EQ(run(never, c), 0);
  EXPECT_EQ(listing(dir / "run/checkpoints"), "step-6");
}

void set_norm(train::TrainState& s, float value) {
  model::Model& m = s.model();
  for (const auto& p : m.parameters)
    if (p.name == "model.norm.weight") std::fill_n(m.block + p.offset, p.size(), value);
  m.refresh(s.exec());
}

TEST_F(RunOfAStage, ALossThatIsNotFiniteMovesNoWeight) {
  train::RunConfig c = stage_config();
  c.train.checkpoint_every = 1;
  Weighted stage(c);
  std::vector<float> before;
  stage.before_step = [&](int64_t i) {
    if (i != 3) return;
    set_norm(stage.state(), 3e38f);
    const model::Model& m = stage.state().model();
    before.assign(m.block, m.block + model::parameter_elements(m.parameters));
  };
  expect_error([&] { run(stage, c); }, {"step 4: the loss is not finite", "(gradient)", "checkpoints/step-3"},
               ExitCode::failed);
  EXPECT_EQ(std::memcmp(stage.state().model().block, before.data(), before.size() * sizeof(float)), 0);
  EXPECT_EQ(listing(dir / "run/checkpoints"), "step-1 step-2 step-3");
}

TEST_F(RunOfAStage, AWeightThatIsNotFiniteIsNotSaved) {
  train::RunConfig c = stage_config();
  c.train.checkpoint_every = 1;
  Weighted stage(c);
  stage.after_step = [&](int64_t i) {
    if (i == 3) set_norm(stage.state(), INFINITY);
  };
  expect_error([&] { run(stage, c); },
               {"step 4: a weight is not finite, nothing is saved; first bad tensor: model.norm.weight", "step-3"},
               ExitCode::failed);
  EXPECT_EQ(listing(dir / "run/checkpoints"), "step-1 step-2 step-3");
}

// Sequences of every step while the batch grows: pre-training asks for so many, in parts of no more than the plan has.
struct CountedRows : data::BatchSource {
  std::vector<int64_t>* rows;
  explicit CountedRows(std::vector<int64_t>* r) : rows(r) {}
  data::Batch training_batch(int64_t step, int64_t, int64_t first_row, int64_t n) const override {
    if (first_row == 0) rows->push_back(0);
    rows->back() += n;
    return test::batch(static_cast<uint64_t>(step), n, 40);
  }
  std::vector<data::Batch> validation_batches(int64_t, int64_t) const override { return {test::batch(99, 1, 40)}; }
};

TEST(Pretraining, TheBatchGrowsLinearly) {
  train::RunConfig c = stage_config();
  c.train.batch_size = 4, c.train.grad_accum = 2, c.train.batch_ramp = 5, c.train.steps = 7;
  std::vector<int64_t> rows;
  train::RunData data;
  data.batches = std::make_unique<CountedRows>(&rows);
  train::Pretraining stage(c, std::move(data), 1);
  stage.state().initialise();
  for (int64_t i = 0; i < 7; ++i) {
    const int64_t tokens = stage.step(i).tokens;
    EXPECT_EQ(tokens, 40 * rows.at(static_cast<size_t>(i)));
  }
  EXPECT_EQ(rows, (std::vector<int64_t>{1, 1, 2, 3, 4, 4, 4}));  // max(1, 4 i / 5)
}

// Gains are those of the maps of every site, composed in order; forward by rows, backward by columns.
TEST(GainsOfAModel, AreThoseOfTheModelsMaps) {
  const train::RunConfig c = stage_config();
  train::TrainState state(c, 1);
  state.initialise();
  model::Model& m = state.model();
  const Rng rng(5, 1);
  for (const auto& p : m.parameters)
    if (p.name.find("hc") != std::string::npos)
      for (int64_t i = 0; i < p.size(); ++i)
        m.block[p.offset + i] += static_cast<float>(0.2 * rng.normal(static_cast<uint64_t>(p.offset + i)));
  m.refresh(state.exec());
  const data::Batch b = test::batch(3, 1, 40);
  const train::GainRecord got = state.measure_gains(b);

  Arena kept(size_t{64} << 20), scratch(size_t{64} << 20);
  model::Tape tape = model::reserve_tape(kept, m, 40, model::Tape::Keep::nothing);
  model::forward({state.exec(), m, {b.position, b.first_key, b.segment_start, b.sequence_start}, scratch}, b.ids, tape);
  const int64_t n = m.residual.streams;
  std::vector<double> product(static_cast<size_t>(40 * n * n));
  for (int64_t t = 0; t < 40; ++t)
    for (int64_t i = 0; i < n; ++i) product[static_cast<size_t>((t * n + i) * n + i)] = 1;
  ASSERT_EQ(got.forward.site.size(), static_cast<size_t>(m.sites()));
  for (int64_t s = 0; s < m.sites(); ++s) {
    Mat pre = scratch.mat(f32_t, 40, n), post = scratch.mat(f32_t, 40, n), res = scratch.mat(f32_t, 40, n * n);
    ops::site_coefficients(state.exec(), m.residual, m.site(s), tape.site[static_cast<size_t>(s)], pre, post, res);
    double rows = 0, columns = 0;
    for (int64_t t = 0; t < 40; ++t) {
      double row = 0, column = 0;
      std::vector<double> next(static_cast<size_t>(n * n));
      for (int64_t i = 0; i < n; ++i) {
        double r = 0, q = 0;
        for (int64_t j = 0; j < n; ++j) {
          r += static_cast<double>(res.f32(t)[i * n + j]);
          q += static_cast<double>(res.f32(t)[j * n + i]);
          for (int64_t k = 0; k < n; ++k)
            next[static_cast<size_t>(i * n + j)] +=
                static_cast<double>(res.f32(t)[i * n + k]) * product[static_cast<size_t>((t * n + k) * n + j)];
        }
        row = std::max(row, std::abs(r));
        column = std::max(column, std::abs(q));
      }
      std::copy(next.begin(), next.end(), product.begin() + t * n * n);
      rows += row / 40;
      columns += column / 40;
    }
    EXPECT_NEAR(got.forward.site[static_cast<size_t>(s)], rows, 1e-9 * rows) << s;
    EXPECT_NEAR(got.backward.site[static_cast<size_t>(s)], columns, 1e-9 * columns) << s;
  }
  double most = 0;
  for (int64_t t = 0; t < 40; ++t)
    for (int64_t i = 0; i < n; ++i) {
      double r = 0;
      for (int64_t j = 0; j < n; ++j) r += product[static_cast<size_t>((t * n + i) * n + j)];
      most = std::max(most, std::abs(r));
    }
  EXPECT_NEAR(got.forward.max_max, most, 1e-9 * most);
  EXPECT_GT(std::abs(got.forward.max_max - got.backward.max_max), 1e-3) << "rows and columns are to be told apart";
}

}  // namespace
}  // namespace birkhoff::test
