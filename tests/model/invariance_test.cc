// What must not matter in a batch: a token's neighbours, and what comes after it.
#include <gtest/gtest.h>

#include <cstring>

#include "support/places.h"
#include "support/small_model.h"

namespace birkhoff::test {
namespace {

using model::ModelConfig;

// Logits [T, V] of packed documents.
std::vector<float> logits(SmallModel& s, const Exec& exec, const std::vector<int32_t>& ids,
                          const std::vector<int32_t>& starts, model::Tape::Keep keep = model::Tape::Keep::nothing) {
  const auto T = static_cast<int64_t>(ids.size());
  const Packed at(T, starts, starts);
  s.kept.reset();
  s.scratch.reset();
  model::Tape tape = model::reserve_tape(s.kept, *s.m, T, keep);
  model::forward({exec, *s.m, at.context(), s.scratch}, ids, tape);
  std::vector<float> out(static_cast<size_t>(T * s.m->config.vocab_size));
  model::logits(exec, *s.m, tape.hidden, Mat(out.data(), f32_t, T, s.m->config.vocab_size));
  return out;
}

std::vector<int32_t> random_ids(size_t n, uint64_t seed, int64_t vocab) {
  std::vector<int32_t> ids(n);
  for (size_t i = 0; i < n; ++i) ids[i] = static_cast<int32_t>(Rng(seed).bits(i) % static_cast<uint64_t>(vocab));
  return ids;
}

// Rows [first, first + count) of a against the same number of rows of b from `from`.
void expect_same_rows(const std::vector<float>& a, size_t first, const std::vector<float>& b, size_t from, size_t count,
                      size_t vocab, const std::string& what) {
  for (size_t r = 0; r < count; ++r)
    ASSERT_EQ(std::memcmp(a.data() + (first + r) * vocab, b.data() + (from + r) * vocab, vocab * sizeof(float)), 0)
        << what << ", row " << r;
}

struct Kind {
  std::string name;
  ModelConfig config;
  DType t;
};
std::vector<Kind> kinds() {
  std::vector<Kind> all;
  for (DType t : {f32_t, bf16_t}) {
    for (const char* residual : {"plain", "hc", "mhc"})
      all.push_back({std::string(residual) + "_" + dtype_name(t), wide_config(residual), t});
    for (const char* form : {"lite", "kron"})
      all.push_back({std::string(form) + "_" + dtype_name(t), with_form(wide_config("mhc"), form), t});
    all.push_back({std::string("v4_") + dtype_name(t), wide_v4_config(), t});
    ModelConfig gqa = small_config("mhc", 4, false);
    gqa.hidden_size = 64, gqa.head_dim = 32;
    all.push_back({std::string("gqa_") + dtype_name(t), gqa, t});
    gqa.qkv_bias = gqa.qk_norm = true;
    all.push_back({std::string("gqa_bias_norm_") + dtype_name(t), gqa, t});
    ModelConfig deep = small_config("plain", 1, false);  // sums longer than one block of a product
    deep.hidden_size = 130, deep.intermediate_size = 4200, deep.n_routed_experts = deep.n_shared_experts = 0,
    deep.num_hidden_layers = 1;
    all.push_back({std::string("long_sums_") + dtype_name(t), deep, t});
  }
  return all;
}

class Batch : public testing::TestWithParam<size_t> {
 protected:
  // Runs f(model, exec) on every instruction set.
  template <class F>
  void on_every_isa(F&& f) {
    const Kind kind = kinds()[GetParam()];
    SCOPED_TRACE(kind.name);
    for (Isa isa : machine_isas()) {
      const IsaScope scope(isa);
      SCOPED_TRACE(isa_name(isa));
      const Exec exec(2);
      SmallModel s(kind.config, kind.t, 4, exec);
      f(s, exec, static_cast<size_t>(kind.config.vocab_size));
    }
  }
};

TEST_P(Batch, NeighboursDoNotMatter) {
  on_every_isa([](SmallModel& s, const Exec& exec, size_t V) {
    const auto mine = random_ids(37, 1, static_cast<int64_t>(V));
    const auto alone = logits(s, exec, mine, {0});
    for (const auto& [before, after] :
         std::vector<std::pair<size_t, size_t>>{{1, 0}, {0, 1}, {13, 40}, {64, 3}, {100, 150}}) {
      std::vector<int32_t> ids = random_ids(before, 2, static_cast<int64_t>(V));
      ids.insert(ids.end(), mine.begin(), mine.end());
      const auto rest = random_ids(after, 3, static_cast<int64_t>(V));
      ids.insert(ids.end(), rest.begin(), rest.end());
      std::vector<int32_t> starts{0};
      if (before) starts.push_back(static_cast<int32_t>(before));
      if (after) starts.push_back(static_cast<int32_t>(before + 37));
      const auto packed = logits(s, exec, ids, starts);
      expect_same_rows(alone, 0, packed, before, 37, V,
                       std::to_string(before) + " tokens before, " + std::to_string(after) + " after");
    }
    expect_same_rows(alone, 0, logits(s, exec, mine, {0}, model::Tape::Keep::for_backward), 0, 37, V, "training");
  });
}

TEST_P(Batch, ThePastDoesNotSeeTheFuture) {
  on_every_isa([](SmallModel& s, const Exec& exec, size_t V) {
    auto ids = random_ids(70, 1, static_cast<int64_t>(V));
    const auto all = logits(s, exec, ids, {0});
    for (size_t n : {1, 2, 3, 16, 17, 33, 64}) {  // a prefix by itself: other row counts too
      const auto prefix = logits(s, exec, {ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(n)}, {0});
      expect_same_rows(prefix, 0, all, 0, n, V, "prefix of " + std::to_string(n));
    }
    ids[40] = (ids[40] + 1) % static_cast<int32_t>(V);
    const auto changed = logits(s, exec, ids, {0});
    expect_same_rows(changed, 0, all, 0, 40, V, "before the changed token");
    for (size_t t = 40; t < 70; ++t)
      EXPECT_NE(std::memcmp(changed.data() + t * V, all.data() + t * V, V * sizeof(float)), 0)
          << "row " << t << " should see the change";
  });
}

TEST_P(Batch, DocumentsDoNotSeeEachOther) {
  on_every_isa([](SmallModel& s, const Exec& exec, size_t V) {
    auto ids = random_ids(60, 1, static_cast<int64_t>(V));
    const auto before = logits(s, exec, ids, {0, 25});
    for (size_t t = 0; t < 25; ++t) ids[t] = (ids[t] + 5) % static_cast<int32_t>(V);
    expect_same_rows(before, 25, logits(s, exec, ids, {0, 25}), 25, 35, V, "second document");
  });
}

INSTANTIATE_TEST_SUITE_P(Kinds, Batch, testing::Range<size_t>(0, kinds().size()),
                         [](const auto& p) { return kinds()[p.param].name; });

}  // namespace
}  // namespace birkhoff::test
