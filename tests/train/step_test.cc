// Whole optimizer steps against an independent float64 trainer (tests/golden/steps, or every run of BIRKHOFF_ORACLE):
// losses, gradient norm, rate, expert loads and router biases of every step, weights after the first and the last.
// Tolerances are those of steps.json, which come from a float32 run of that trainer.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <fstream>
#include <set>

#include "checkpoint/hf_directory.h"
#include "io/json_file.h"
#include "io/safetensors.h"
#include "support/golden.h"
#include "support/matrix.h"
#include "support/temp_dir.h"
#include "train/train_state.h"

namespace birkhoff::test {
namespace {

using nlohmann::json;
using FileTensors = std::map<std::string, std::vector<float>>;

struct Variant {
  int threads = 2;
  const char* recompute = "none";
};

// Rows of ids, the last of each a label only.
data::Batch batch_of(const std::vector<std::vector<int32_t>>& rows) {
  data::Batch b;
  b.rows = static_cast<int64_t>(rows.size());
  b.seq_len = static_cast<int64_t>(rows.at(0).size()) - 1;
  for (const auto& row : rows) {
    const auto start = static_cast<int32_t>(b.ids.size());
    b.segment_start.push_back(start);
    b.sequence_start.push_back(start);
    for (size_t i = 0; i + 1 < row.size(); ++i) {
      b.ids.push_back(row[i]);
      b.labels.push_back(row[i + 1]);
      b.position.push_back(static_cast<int32_t>(i));
      b.first_key.push_back(start);
    }
  }
  return b;
}

std::vector<data::Batch> parts_of(const json& step, size_t rows_a_part) {
  const auto rows = step.at("ids").get<std::vector<std::vector<int32_t>>>();
  std::vector<data::Batch> parts;
  for (size_t at = 0; at < rows.size(); at += rows_a_part)
    parts.push_back(batch_of({rows.begin() + static_cast<std::ptrdiff_t>(at),
                              rows.begin() + static_cast<std::ptrdiff_t>(std::min(rows.size(), at + rows_a_part))}));
  return parts;
}

FileTensors read_tensors(const std::string& path) {
  const io::SafetensorsFile file(path);
  FileTensors out;
  for (const auto& t : file.tensors()) {
    std::vector<float>& v = out[t.name];
    v.resize(static_cast<size_t>(t.size()));
    if (!checkpoint::read_as_f32(t, v.data()))
      for (size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(t.as<int64_t>()[i]);  // tables of experts
  }
  return out;
}

std::string steps_dir() { return (has_golden("steps") ? golden_dir() : committed_dir()) + "/steps"; }

std::vector<std::string> runs_of(const std::string& dir) {
  std::vector<std::string> names;
  for (const auto& d : std::filesystem::directory_iterator(dir))
    if (std::filesystem::exists(d.path() / "steps.json")) names.push_back(d.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

class Replay {
 public:
  Replay(const std::string& name, const Variant& v)
      : dir_(steps_dir() + "/" + name),
        steps_(python_json(dir_ + "/steps.json")),
        tolerance_(steps_.at("tolerance")),
        config_(config_of(dir_, v)),
        state_(config_, v.threads) {
    state_.initialise([&](model::Model& m) { checkpoint::load_weights(dir_, m); });
    start_ = read_tensors(dir_ + "/model.safetensors");
    if (std::filesystem::exists(dir_ + "/adapter_init.safetensors")) put_adapters();
  }

  void run() {
    int64_t i = 0;
    const auto last = static_cast<int64_t>(steps_.at("steps").size()) - 1;
    for (const json& want : steps_.at("steps")) {
      SCOPED_TRACE("step " + std::to_string(i + 1));
      state_.accumulate(parts_of(want, static_cast<size_t>(config_.train.batch_size / config_.train.grad_accum)));
      const train::StepOutcome got = state_.apply(i);
      check_record(got, want);
      if (i == 0) check_weights("first", "after_1.safetensors");
      if (i == last) check_weights("final", "final.safetensors");
      if (want.contains("val_loss") && !want["val_loss"].is_null()) near("val_loss", validation_loss(), want, 1e-6);
      ++i;
    }
  }

 private:
  static train::RunConfig config_of(const std::string& dir, const Variant& v) {
    const model::ModelConfig from = train::model_of_directory(checkpoint::read_config_json(dir));
    return train::make_run_config(io::read_json(dir + "/train.json"), {std::string("recompute=") + v.recompute}, &from);
  }

  void put_adapters() {
    const FileTensors given = read_tensors(dir_ + "/adapter_init.safetensors");
    model::Model& m = state_.model();
    ASSERT_EQ(m.adapters.size(), given.size());
    for (const auto& p : m.adapters) {
      const auto it = given.find(p.name);
      ASSERT_TRUE(it != given.end() && static_cast<int64_t>(it->second.size()) == p.size()) << p.name;
      std::copy(it->second.begin(), it->second.end(), m.adapter_block + p.offset);
      start_.insert(*it);
    }
    m.refresh(state_.exec());
  }

  // As files name them.
  FileTensors weights() {
    const TempDir out;
    checkpoint::save_weights(out / "", state_.model(), train::run_config_to_json(config_), f32_t);
    FileTensors t = read_tensors(out / "model.safetensors");
    const model::Model& m = state_.model();
    for (const auto& p : m.adapters)
      t[p.name].assign(m.adapter_block + p.offset, m.adapter_block + p.offset + p.size());
    return t;
  }

  void near(const char* field, double got, const json& want, double relative) {
    const double value = want.at(field);
    EXPECT_NEAR(got, value, tolerance_.at("records").at(field).get<double>() + relative * std::abs(value)) << field;
  }
  void near(const char* field, const std::optional<double>& got, const json& want) {
    ASSERT_EQ(got.has_value(), !want.at(field).is_null()) << field;
    if (got) near(field, *got, want, 1e-6);
  }

  void check_record(const train::StepOutcome& got, const json& want) {
    EXPECT_NEAR(got.lr, want.at("lr").get<double>(), 1e-9 * want.at("lr").get<double>() + 1e-15);
    near("loss", got.loss, want, 1e-6);
    near("z_loss", got.z_loss, want, 1e-6);
    near("aux_loss", got.aux_loss, want, 1e-6);
    near("mtp_loss", got.mtp_loss, want);
    near("indexer_loss", got.indexer_loss, want);
    near("grad_norm", got.grad_norm, want, 4e-6);
    EXPECT_EQ(got.tokens, want.at("rows").get<int64_t>() * config_.train.seq_len);
    if (want.contains("expert_load")) {
      EXPECT_EQ(got.expert_load, want["expert_load"].get<std::vector<std::vector<int64_t>>>());
    }
    if (want.contains("router_bias")) check_biases(want["router_bias"].get<std::vector<std::vector<double>>>());
  }

  void check_biases(const std::vector<std::vector<double>>& want) {
    size_t layer = 0;
    for (auto& block : state_.model().weights.blocks) {
      const auto* moe = std::get_if<layers::Moe::Weights>(&block.ffn);
      if (!moe || moe->bias.empty()) continue;
      ASSERT_LT(layer, want.size());
      for (size_t e = 0; e < want[layer].size(); ++e)
        EXPECT_NEAR(moe->bias.f32()[e], want[layer][e], 1e-6) << "router " << layer << ", expert " << e;
      ++layer;
    }
    EXPECT_EQ(layer, want.size());
  }

  void check_weights(const char* when, const std::string& file) {
    const FileTensors now = weights(), moved = read_tensors(dir_ + "/" + file);
    ASSERT_GT(moved.size(), 0u);
    for (const auto& [name, before] : start_) {
      const auto it = now.find(name);
      ASSERT_TRUE(it != now.end()) << name;
      const std::vector<float>& w = it->second;
      ASSERT_EQ(w.size(), before.size()) << name;
      const auto want = moved.find(name);
      if (want == moved.end()) {
        EXPECT_EQ(std::memcmp(w.data(), before.data(), w.size() * sizeof(float)), 0) << name << " must not move";
        continue;
      }
      const double limit = tolerance_.at(when).at(name);
      double worst = 0;
      for (size_t i = 0; i < w.size(); ++i) {
        const double d = std::abs(static_cast<double>(w[i]) - static_cast<double>(want->second[i]));
        worst = std::isfinite(d) ? std::max(worst, d) : d;
      }
      EXPECT_LE(worst, limit) << name << " " << when;
    }
  }

  double validation_loss() {
    std::ifstream in(dir_ + "/val.bin", std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(in)), {});
    std::vector<std::vector<int32_t>> rows;
    const auto S = static_cast<size_t>(config_.train.seq_len);
    for (size_t at = 0; at + S < bytes.size(); at += S) {
      rows.emplace_back();
      for (size_t i = 0; i <= S; ++i) rows.back().push_back(static_cast<uint8_t>(bytes[at + i]));
    }
    std::vector<data::Batch> batches;
    for (const auto& row : rows) batches.push_back(batch_of({row}));
    return state_.evaluate(batches);
  }

  std::string dir_;
  json steps_, tolerance_;
  train::RunConfig config_;
  train::TrainState state_;
  FileTensors start_;
};

TEST(Steps, EveryRunIsThere) {
  EXPECT_EQ(runs_of(committed_dir() + "/steps").size(), 17u);
  EXPECT_FALSE(runs_of(steps_dir()).empty());
}

TEST(Steps, FiguresThatJsonDoesNotHaveAreNone) {
  const TempDir dir;
  const std::string text = R"({"a": Infinity, "Infinity": [-Infinity, NaN, -1e3], "b\\": "\"NaN, Infinity"})";
  EXPECT_EQ(python_json(dir.file("a.json", text)),
            json::parse(R"({"a": null, "Infinity": [null, null, -1e3], "b\\": "\"NaN, Infinity"})"));
  EXPECT_THROW(python_json(dir.file("b.json", R"({"a": Inf})")), json::exception);
}

class Steps : public testing::TestWithParam<std::string> {};

TEST_P(Steps, AgreeWithTheSpecification) { Replay(GetParam(), {}).run(); }
TEST_P(Steps, OnTheScalarLevel) {
  const IsaScope scope(Isa::scalar);
  Replay(GetParam(), {}).run();
}
TEST_P(Steps, WithLayersRecomputed) { Replay(GetParam(), {1, "layer"}).run(); }

INSTANTIATE_TEST_SUITE_P(Runs, Steps, testing::ValuesIn(runs_of(steps_dir())), [](const auto& i) {
  std::string name = i.param;  // of letters, digits and underscores alone
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return !std::isalnum(c); }, '_');
  return name;
});

}  // namespace
}  // namespace birkhoff::test
