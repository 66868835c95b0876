// Reference checkpoints in every number format, opened as they lie: logits within the tolerance of each case.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "infer/engine.h"
#include "support/matrix.h"
#include "support/model_case.h"

namespace birkhoff::test {
namespace {

std::vector<std::string> cases() {
  std::vector<std::string> found;
  for (const char* name : {"deepseek_v3", "deepseek_v2_lite", "llama_gqa", "deepseek_v2", "llama", "llama_linear_rope", "llama_bf16", "mixtral", "deepseek_moe", "deepseek_v3_fp8", "deepseek_v4", "deepseek_v4_hf", "deepseek_v4_fp4"})
    if (std::filesystem::exists(case_dir(name))) found.push_back(name);
  return found;
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
      engine.full_logits(row, [&](int64_t, std::span<const float> logits) { got.insert(got.end(), logits.begin(), logits.end()); });
    }
    expect_close(got, want, golden_json["tolerance"], name);
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, EngineCase, testing::ValuesIn(cases()), [](const auto& p) { return p.param; });

}  // namespace
}  // namespace birkhoff::test
