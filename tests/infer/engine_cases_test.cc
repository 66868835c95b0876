// Reference checkpoints in every number format, opened as they lie: logits within the tolerance of each case.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "infer/session.h"
#include "support/matrix.h"
#include "support/model_case.h"
#include "support/model_directory.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

std::vector<std::string> cases() {
  return test::cases_of({"deepseek_v3", "deepseek_v2_lite", "llama_gqa", "deepseek_v2", "llama", "llama_linear_rope",
                         "llama3_rope", "qwen2", "qwen2_yarn", "qwen3", "qwen3_yarn", "llama_bf16", "mixtral",
                         "deepseek_moe", "deepseek_v3_fp8", "deepseek_v4", "deepseek_v4_hf", "deepseek_v4_fp4"});
}

class EngineCase : public testing::TestWithParam<std::string> {};

TEST_P(EngineCase, Logits) {
  const std::string name = GetParam();
  const nlohmann::json golden_json = io::read_json(case_dir(name) + "/golden.json");
  const io::SafetensorsFile f(case_dir(name) + "/golden.safetensors");
  const auto shape = golden_shape(f, "input_ids");
  const std::vector<double> ids = golden(f, "input_ids"), want = golden(f, "logits");
  for (const Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    SCOPED_TRACE(isa_name(isa));
    infer::EngineOptions o;
    o.compute = "fp32", o.threads = 2, o.max_positions = shape[1];
    const infer::Engine engine(case_dir(name), o);
    std::vector<double> got;
    for (int64_t b = 0; b < shape[0]; ++b) {
      const std::vector<int32_t> row(ids.begin() + b * shape[1], ids.begin() + (b + 1) * shape[1]);
      engine.full_logits(
          row, [&](int64_t, std::span<const float> logits) { got.insert(got.end(), logits.begin(), logits.end()); });
    }
    expect_close(got, want, golden_json["tolerance"], name);
  }
}

// Every token of a session that keeps keys and values has the bits of the forward without a cache, given or generated.
class ExpandedCase : public testing::TestWithParam<std::tuple<std::string, ops::WeightFormat>> {};

TEST_P(ExpandedCase, SessionsHaveTheBitsOfTheFullForward) {
  const auto& [name, weights] = GetParam();
  for (const char* compute : {"fp32", "bf16"}) {
    infer::EngineOptions o;
    o.compute = compute, o.threads = 2, o.max_positions = 100;
    o.weights = {weights, weights};
    o.latent_attention = model::LatentAttention::expanded;
    const infer::Engine engine(case_dir(name), o);
    const auto ids = random_ids(100, engine.model().config.vocab_size);
    std::vector<std::vector<float>> want;
    engine.full_logits(ids, [&](int64_t, std::span<const float> row) { want.emplace_back(row.begin(), row.end()); });
    for (const size_t piece : {1, 7, 64, 100}) {
      infer::Session session(engine, 100);
      for (size_t at = 0; at < ids.size(); at += piece) {
        const auto part = std::span(ids).subspan(at, std::min(piece, ids.size() - at));
        const auto got = session.feed(part, at < 50 ? infer::TokenRole::prompt : infer::TokenRole::generated);
        ASSERT_EQ(std::vector<float>(got.begin(), got.end()), want[at + part.size() - 1])
            << compute << " pieces of " << piece << ", behind " << at;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, ExpandedCase,
                         testing::Combine(testing::ValuesIn(cases_of({"deepseek_v2_lite", "deepseek_v2", "deepseek_v3",
                                                                      "deepseek_v3_fp8", "deepseek_v32"})),
                                          testing::Values(ops::WeightFormat::stored, ops::WeightFormat::q8,
                                                          ops::WeightFormat::q4)),
                         [](const auto& p) { return std::get<0>(p.param) + "_" + name_of(std::get<1>(p.param)); });

// As transformers writes V3: config.json still counts the prediction modules, whose tensors are gone.
TEST(EngineWithoutPredictors, OpensAsWithoutThemAndSaysSo) {
  const TempDir dir;
  std::filesystem::copy(case_dir("deepseek_v3"), dir / "m");
  infer::EngineOptions o;
  o.compute = "fp32", o.threads = 1;
  const std::vector<int32_t> ids{1, 5, 9, 2};
  const auto logits = [&](std::string* note) {
    const infer::Engine engine(dir / "m", o);
    *note = engine.note();
    EXPECT_EQ(engine.model().config.num_nextn_predict_layers, 0);
    std::vector<float> out;
    engine.full_logits(ids,
                       [&](int64_t, std::span<const float> row) { out.insert(out.end(), row.begin(), row.end()); });
    return out;
  };
  std::string note;
  const std::vector<float> want = logits(&note);
  EXPECT_EQ(note, "");
  nlohmann::json config = io::read_json(dir / "m/config.json");
  config["num_nextn_predict_layers"] = 1;
  io::write_json(dir / "m/config.json", config);
  EXPECT_EQ(logits(&note), want);
  EXPECT_NE(note.find("prediction modules"), std::string::npos) << note;

  // A module of which something is there is not whole, and that is an error of who asks for it.
  o.caches.predictors = true;
  const std::string stray =
      "model.layers." + std::to_string(config["num_hidden_layers"].get<int64_t>()) + ".eh_proj.weight";
  const io::SafetensorsFile file(dir / "m/model.safetensors");
  std::vector<io::TensorEntry> tensors = file.tensors();
  const std::vector<float> zeros(2 * 64 * 1024);
  const int64_t dim = config["hidden_size"];
  tensors.push_back({stray,
                     io::TensorType::f32,
                     {dim, 2 * dim},
                     reinterpret_cast<const std::byte*>(zeros.data()),
                     static_cast<size_t>(2 * dim * dim) * 4});
  io::write_safetensors(dir / "more.safetensors", tensors);
  std::filesystem::rename(dir / "more.safetensors", dir / "m/model.safetensors");
  expect_error([&] { infer::Engine(dir / "m", o); }, {"missing", "enorm"});
}

INSTANTIATE_TEST_SUITE_P(Goldens, EngineCase, testing::ValuesIn(cases()), [](const auto& p) { return p.param; });

}  // namespace
}  // namespace birkhoff::test
