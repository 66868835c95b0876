// The reference checkpoints computed in bf16: how far logits are from the float64 ones, and how many experts are chosen otherwise. Every case prints
// its line of the table in docs/numerics.md.
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>

#include "support/matrix.h"
#include "support/model_case.h"

namespace birkhoff {
namespace {

using test::case_dir;

std::vector<std::string> cases() {
  std::vector<std::string> found;
  for (const char* name : {"llama", "llama_bf16", "llama_gqa", "llama_linear_rope", "mixtral", "deepseek_moe", "deepseek_v2", "deepseek_v2_lite", "deepseek_v3", "deepseek_v3_mtp",
                           "deepseek_v3_fp8", "deepseek_v32", "deepseek_v4", "deepseek_v4_hf", "deepseek_v4_fp4"})
    if (std::filesystem::exists(case_dir(name))) found.push_back(name);
  return found;
}

struct Choices {
  int64_t all = 0, other = 0;  // slots of the golden's row; of them an expert that the reference did not choose
};
Choices compare_experts(const io::SafetensorsFile& f, const model::Tape& t) {
  Choices c;
  for (size_t l = 0; l < t.layers.size(); ++l) {
    const std::string key = "experts." + std::to_string(l) + ".index";
    const auto* moe = std::get_if<layers::Moe::Saved>(&t.layers[l].ffn);
    if (!moe || !f.find(key)) continue;
    const auto want = test::golden(f, key);
    const auto shape = test::golden_shape(f, key);
    const auto rows = static_cast<size_t>(shape[0]), K = static_cast<size_t>(shape[1]);
    for (size_t i = 0; i < rows; ++i)
      for (size_t k = 0; k < K; ++k) {
        const auto begin = want.begin() + static_cast<std::ptrdiff_t>(i * K);
        c.other += std::count(begin, begin + static_cast<std::ptrdiff_t>(K), static_cast<double>(moe->routing.index[i * K + k])) == 0;
        ++c.all;
      }
  }
  return c;
}

class Bf16Case : public testing::TestWithParam<std::string> {};

TEST_P(Bf16Case, ErrorOfLogitsAndOtherExperts) {
  const std::string name = GetParam();
  const io::SafetensorsFile f(case_dir(name) + "/golden.safetensors");
  const auto shape = test::golden_shape(f, "input_ids");
  const test::Tokens tokens(test::golden(f, "input_ids"), shape[0], shape[1]);
  const Exec exec(2);
  auto loaded = test::load_case(name, DType::bf16, exec);
  const model::Model& m = loaded->m;
  Arena kept(size_t{64} << 20), scratch(size_t{64} << 20);
  model::Tape tape = model::reserve_tape(kept, m, tokens.size(), model::Tape::Keep::for_backward);
  model::forward(exec, m, tokens.ids, tokens.context(), tape, scratch);
  test::Owned logits(tokens.size(), m.config.vocab_size);
  model::logits(exec, m, tape.hidden, logits);

  const std::vector<double> got = logits.values(), want = test::golden(f, "logits");
  ASSERT_EQ(got.size(), want.size());
  double worst = 0, squares = 0, size = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double d = std::abs(got[i] - want[i]);
    worst = std::max(worst, d), squares += d * d, size += want[i] * want[i];
  }
  const double n = static_cast<double>(want.size()), rms = std::sqrt(squares / n), relative = std::sqrt(squares / size);
  const Choices c = compare_experts(f, tape);
  std::printf("| %-17s | %.3f | %.4f | %.2f %% | %lld of %lld |\n", name.c_str(), worst, rms, 100 * relative, static_cast<long long>(c.other), static_cast<long long>(c.all));
  // Roundings of 2^-8 at some ten points of every layer. Random weights leave many choices of experts and of an indexer's keys so close that a
  // rounding turns some, and a token that goes another way has other logits: then the figures are for the table, their limits for accidents.
  const double points = 12.0 * static_cast<double>(m.config.num_hidden_layers);
  EXPECT_LT(relative, c.other ? 0.5 : std::sqrt(points) * 0x1p-8) << "relative to the size of the logits";
  EXPECT_GT(relative, 0x1p-10) << "bf16 was not used";
  EXPECT_LE(c.other, c.all / 10);
}

INSTANTIATE_TEST_SUITE_P(Goldens, Bf16Case, testing::ValuesIn(cases()), [](const auto& p) { return p.param; });

}  // namespace
}  // namespace birkhoff
