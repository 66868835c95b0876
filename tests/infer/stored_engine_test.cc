// An engine that reads weights where they lie in the files gives the bits of a model with masters and packed copies,
// whatever the format.
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>

#include "checkpoint/hf_directory.h"
#include "checkpoint/save_model.h"
#include "infer/engine.h"
#include "support/small_model.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

std::vector<float> engine_logits(const std::string& dir, DType compute, std::span<const int32_t> ids,
                                 const Exec& exec) {
  infer::EngineOptions o;
  o.compute = compute == f32_t ? "fp32" : "bf16", o.threads = exec.threads(), o.max_positions = 200;
  const infer::Engine engine(dir, o);
  std::vector<float> all;
  engine.full_logits(ids, [&](int64_t, std::span<const float> row) { all.insert(all.end(), row.begin(), row.end()); });
  return all;
}

// The forward pass that training runs.
std::vector<float> training_logits(const std::string& dir, const model::ModelConfig& c, DType compute,
                                   std::span<const int32_t> ids, const Exec& exec) {
  SmallModel s(c, compute, 1, exec);
  checkpoint::load_weights(dir, *s.m);
  s.m->refresh(exec);
  std::vector<int32_t> position(ids.size());
  std::iota(position.begin(), position.end(), 0);
  const std::vector<int32_t> first_key(ids.size(), 0);
  const int32_t start = 0;
  const layers::TokenContext ctx{position, first_key, {&start, 1}, {&start, 1}};
  model::Tape tape =
      model::reserve_tape(s.kept, *s.m, static_cast<int64_t>(ids.size()), model::Tape::Keep::for_backward);
  model::forward({exec, *s.m, ctx, s.scratch}, ids, tape);
  std::vector<float> all(ids.size() * static_cast<size_t>(c.vocab_size));
  model::logits(exec, *s.m, tape.hidden, Mat(all.data(), f32_t, static_cast<int64_t>(ids.size()), c.vocab_size));
  return all;
}

TEST(StoredEngine, HasTheBitsOfTraining) {
  const Exec exec(2);
  std::vector<int32_t> ids;
  for (int i = 0; i < 75; ++i) ids.push_back(i * 7 % 23);
  model::ModelConfig tied = small_config("plain", 1, false), v3 = small_config();
  tied.tie_word_embeddings = true;
  v3.model_type = "deepseek_v3";
  v3.hidden_size = 150;
  for (const model::ModelConfig& c : {small_config("mhc"), small_config("hc", 3, false), tied, v3}) {
    TempDir dir;
    SmallModel s(c, f32_t, 8, exec);
    const checkpoint::RowReader rows = [&](size_t i, int64_t first, int64_t count, Mat out) {
      const model::ParameterInfo& p = s.m->parameters[i];
      std::memcpy(out.f32(), s.m->block + p.offset + first * p.cols, static_cast<size_t>(count * p.cols) * 4);
    };
    for (const checkpoint::SaveType type :
         {checkpoint::SaveType::f32, checkpoint::SaveType::bf16, checkpoint::SaveType::fp8}) {
      if (type == checkpoint::SaveType::fp8 && c.model_type != "deepseek_v3") continue;
      checkpoint::SaveOptions o;
      o.type = type;
      checkpoint::save_model(dir.path(), s.m->config, s.m->parameters, rows, model::config_to_json(s.m->config), o);
      for (const Isa isa : machine_isas()) {
        const IsaScope scope(isa);
        for (const DType compute : {f32_t, bf16_t}) {
          const auto got = engine_logits(dir.path(), compute, ids, exec),
                     want = training_logits(dir.path(), c, compute, ids, exec);
          ASSERT_EQ(got.size(), want.size());
          EXPECT_EQ(std::memcmp(got.data(), want.data(), got.size() * 4), 0)
              << name_of(c.residual) << " " << dtype_name(compute) << " " << isa_name(isa) << " type "
              << static_cast<int>(type);
        }
      }
    }
  }
}

TEST(StoredEngine, TakesNoCopyOfMatrices) {
  const Exec exec(1);
  TempDir dir;
  SmallModel s(small_config("mhc"), f32_t, 8, exec);
  checkpoint::save_weights(dir.path(), *s.m, model::config_to_json(s.m->config), bf16_t);
  infer::EngineOptions o;
  o.max_positions = 64;
  const infer::Engine engine(dir.path(), o);
  const model::Model& m = engine.model();
  EXPECT_EQ(m.block, nullptr);
  EXPECT_EQ(m.weights.embed.data, nullptr);
  EXPECT_EQ(m.weights.head.w.data, nullptr);
  EXPECT_NE(m.weights.head.forward.stored, nullptr);
  EXPECT_NE(m.weights.norm.data, nullptr);
}

}  // namespace
}  // namespace birkhoff::test
