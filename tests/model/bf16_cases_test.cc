// The reference checkpoints computed in bf16: how far logits are from the float64 ones, and how many experts are chosen
// otherwise. Every case prints its line of the table in docs/numerics.md.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "support/matrix.h"
#include "support/model_case.h"

namespace birkhoff {
namespace {

using test::case_dir;

std::vector<std::string> bf16_cases() {
  return test::cases_of({"llama",
                         "llama_bf16",
                         "llama_gqa",
                         "llama_linear_rope",
                         "llama3_rope",
                         "qwen2",
                         "qwen2_yarn",
                         "qwen3",
                         "qwen3_yarn",
                         "mixtral",
                         "deepseek_moe",
                         "deepseek_v2",
                         "deepseek_v2_lite",
                         "deepseek_v3",
                         "deepseek_v3_mtp",
                         "deepseek_v3_fp8",
                         "deepseek_v32",
                         "deepseek_v4",
                         "deepseek_v4_hf",
                         "deepseek_v4_fp4"});
}

// A forward over a case's tokens in one type.
struct Computed {
  std::unique_ptr<test::LoadedModel> loaded;
  Arena kept{size_t{64} << 20}, scratch{size_t{64} << 20};
  model::Tape tape;
  std::vector<double> logits;

  Computed(const std::string& name, DType dtype, const test::Tokens& tokens, const Exec& exec)
      : loaded(test::load_case(name, dtype, exec)) {
    const model::Model& m = loaded->m;
    tape = model::reserve_tape(kept, m, tokens.size(), model::Tape::Keep::for_backward);
    model::forward({exec, m, tokens.context(), scratch}, tokens.ids, tape);
    test::Owned out(tokens.size(), m.config.vocab_size);
    model::logits(exec, m, tape.hidden, out);
    logits = out.values();
  }
  const layers::Moe::Saved* moe(size_t layer) const { return std::get_if<layers::Moe::Saved>(&tape.layers[layer].ffn); }
  std::span<const int32_t> experts(size_t layer, int64_t token) const {
    const auto K = static_cast<size_t>(moe(layer)->routing.weights.cols);
    return moe(layer)->routing.index.subspan(static_cast<size_t>(token) * K, K);
  }
  // What an indexer chose to be seen; empty where there is none.
  std::span<const int32_t> seen(size_t layer, int64_t token) const {
    IndexMat keys;
    if (const auto* sparse = std::get_if<layers::SparseMla::Saved>(&tape.layers[layer].attn)) keys = sparse->keys;
    if (const auto* compressed = std::get_if<layers::CompressedAttention::Saved>(&tape.layers[layer].attn))
      keys = compressed->indexer.chosen;
    return std::span<const int32_t>(keys.row(token), static_cast<size_t>(keys.cols));
  }
};

// The size of differences relative to that of what they should be (root mean squares).
struct Relative {
  double worst = 0, squares = 0, size = 0;
  void add(double got, double want) {
    const double d = std::abs(got - want);
    worst = std::max(worst, d), squares += d * d, size += want * want;
  }
  double value() const { return size > 0 ? std::sqrt(squares / size) : 0; }
};

// bf16 rounds (2^-8 at most) at some twelve points of every layer; roundings are independent of each other.
double limit_after(size_t layers) { return std::sqrt(12.0 * static_cast<double>(layers)) * 0x1p-8; }

class Bf16Case : public testing::TestWithParam<std::string> {};

// Random weights leave many choices of experts and of an indexer's keys closer than a rounding. Where one turns, the
// token and all that see it are another computation from there on: they are in the figures printed, and no limit holds
// for them. For all others one does.
TEST_P(Bf16Case, ErrorOfLogitsAndOtherExperts) {
  const std::string name = GetParam();
  const io::SafetensorsFile f(case_dir(name) + "/golden.safetensors");
  const auto shape = test::golden_shape(f, "input_ids");
  const test::Tokens tokens(test::golden(f, "input_ids"), shape[0], shape[1]);
  const Exec exec(2);
  const Computed whole(name, f32_t, tokens, exec), rounded(name, DType::bf16, tokens, exec);
  const std::vector<double> want = test::golden(f, "logits");
  ASSERT_EQ(rounded.logits.size(), want.size());
  const auto T = static_cast<size_t>(tokens.size()), V = want.size() / T, layers = whole.tape.layers.size();

  std::vector<bool> same(T, true);  // no choice of it, or of a token before it, has turned so far
  const auto turn = [&](int64_t token) {
    for (auto t = static_cast<size_t>(token);
         t < T && tokens.first_key[t] == tokens.first_key[static_cast<size_t>(token)]; ++t)
      same[t] = false;
  };
  int64_t choices = 0, other = 0, other_keys = 0;
  for (size_t l = 0; l < layers; ++l) {
    for (int64_t t = 0; t < tokens.size(); ++t)
      if (!std::ranges::equal(whole.seen(l, t), rounded.seen(l, t))) ++other_keys, turn(t);
    if (!whole.moe(l)) continue;
    Relative router;
    for (int64_t t = 0; t < tokens.size(); ++t)
      for (int64_t e = 0; same[static_cast<size_t>(t)] && e < whole.moe(l)->logits.cols; ++e)
        router.add(static_cast<double>(rounded.moe(l)->logits.f32(t)[e]),
                   static_cast<double>(whole.moe(l)->logits.f32(t)[e]));
    EXPECT_LT(router.value(), limit_after(l + 1)) << "logits of the router of layer " << l;
    for (int64_t t = 0; t < tokens.size(); ++t) {
      const auto a = whole.experts(l, t), b = rounded.experts(l, t);
      const auto turned = std::ranges::count_if(a, [&](int32_t e) { return !std::ranges::count(b, e); });
      choices += static_cast<int64_t>(a.size()), other += turned;
      if (turned) turn(t);
    }
  }
  Relative all, alike;
  for (size_t i = 0; i < want.size(); ++i) {
    all.add(rounded.logits[i], want[i]);
    if (same[i / V]) alike.add(rounded.logits[i], want[i]);
  }
  const auto alike_tokens = std::ranges::count(same, true);
  std::printf("| %-17s | %.3f | %.2f %% | %.2f %% of %lld tokens of %zu | %lld of %lld | %lld |\n", name.c_str(),
              all.worst, 100 * all.value(), 100 * alike.value(), static_cast<long long>(alike_tokens), T,
              static_cast<long long>(other), static_cast<long long>(choices), static_cast<long long>(other_keys));
  EXPECT_GT(alike_tokens, 0);
  EXPECT_LT(alike.value(), limit_after(layers));
  EXPECT_GT(alike.value(), 0x1p-10) << "bf16 was not used";
}

INSTANTIATE_TEST_SUITE_P(Goldens, Bf16Case, testing::ValuesIn(bf16_cases()), [](const auto& p) { return p.param; });

}  // namespace
}  // namespace birkhoff
