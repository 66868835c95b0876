// Continuations scored together: the bits of each alone, and no id read twice.
#include "eval/continuations.h"

#include <map>
#include <set>

#include "core/error.h"
#include "infer/batch_models.h"
#include "infer/session.h"
#include "ops/rows/cross_entropy.h"
#include "support/model_directory.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

using eval::Continuation;
using eval::ContinuationScore;

std::vector<int32_t> joined(std::vector<int32_t> a, const std::vector<int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// Documents behind shared shots, choices of one or more tokens behind documents; equal ones, and ones that begin as
// others end.
std::vector<Continuation> questionnaire(int64_t vocab) {
  const std::vector<int32_t> ids = random_ids(1200, vocab);
  const auto part = [&](size_t first, size_t n) {
    return std::vector<int32_t>(ids.begin() + static_cast<int64_t>(first),
                                ids.begin() + static_cast<int64_t>(first + n));
  };
  const std::vector<int32_t> shots = part(0, 150);
  std::vector<Continuation> all;
  for (size_t document = 0; document < 6; ++document) {
    const std::vector<int32_t> context = joined(shots, part(200 + 60 * document, 20 + 7 * document));
    for (size_t choice = 0; choice < 4; ++choice)
      all.push_back({joined(context, part(700 + 10 * choice, 1 + choice % 3)), context.size()});
  }
  all.push_back(all[3]);
  all.push_back({shots, 100});  // its continuation lies in what others share
  all.push_back({shots, 149});
  all.push_back({part(900, 2), 1});
  all.push_back({part(300, 700), 640});  // longer than a pass
  return all;
}

// Ids at different places of the tree of what is read.
int64_t tree_size(const std::vector<Continuation>& all) {
  std::set<std::vector<int32_t>> beginnings;
  for (const Continuation& c : all)
    for (size_t n = 1; n < c.ids.size(); ++n)
      beginnings.insert({c.ids.begin(), c.ids.begin() + static_cast<int64_t>(n)});
  return static_cast<int64_t>(beginnings.size());
}

ContinuationScore alone(const infer::Engine& engine, const Continuation& c) {
  infer::Session session(engine, static_cast<int64_t>(c.ids.size()));
  ContinuationScore s;
  auto logits = session.feed({c.ids.data(), c.first});
  for (size_t i = c.first; i < c.ids.size(); ++i) {
    const auto id = static_cast<size_t>(c.ids[i]);
    s.loglikelihood += static_cast<double>(logits[id]) - ops::log_sum_exp(logits);
    s.greedy = s.greedy && std::max_element(logits.begin(), logits.end()) - logits.begin() == c.ids[i];
    if (i + 1 < c.ids.size()) logits = session.feed({c.ids.data() + i, 1});
  }
  return s;
}

infer::EngineOptions scoring_options(const std::string& weights = "stored") {
  infer::EngineOptions o;
  o.compute = "fp32", o.threads = 2, o.max_positions = 1024;
  o.weights = model::WeightFormats::named(weights, weights);
  return o;
}

std::map<size_t, ContinuationScore> score(const infer::Engine& engine, const std::vector<Continuation>& all,
                                          eval::ReadCounts* counts = nullptr) {
  std::map<size_t, ContinuationScore> scores;
  const eval::ReadCounts c = eval::score_continuations(
      engine, all, [&](size_t i, const ContinuationScore& s) { EXPECT_TRUE(scores.emplace(i, s).second); }, false);
  if (counts) *counts = c;
  EXPECT_EQ(scores.size(), all.size());
  return scores;
}

class ScoredContinuations : public ::testing::TestWithParam<const char*> {};

TEST_P(ScoredContinuations, HaveTheBitsOfEachAloneAndReadNothingTwice) {
  TempDir dir;
  write_model(dir.path(), batch_config(GetParam()));
  for (const char* weights : {"stored", "q8"}) {
    const infer::Engine engine(dir.path(), scoring_options(weights));
    const std::vector<Continuation> all = questionnaire(engine.model().config.vocab_size);
    eval::ReadCounts counts;
    const auto scores = score(engine, all, &counts);
    EXPECT_EQ(counts.tokens, tree_size(all));
    EXPECT_LT(counts.passes, 10);
    for (const auto& [i, s] : scores) {
      const ContinuationScore want = alone(engine, all[i]);
      EXPECT_EQ(s.loglikelihood, want.loglikelihood) << i;
      EXPECT_EQ(s.greedy, want.greedy) << i;
    }
    EXPECT_EQ(engine.caches().used(), 0);
  }
}
INSTANTIATE_TEST_SUITE_P(Kinds, ScoredContinuations, ::testing::Values("latent", "sparse", "gqa", "v4"));

TEST(ScoredContinuationsMemory, IsThatOfOnePathWhereThereIsNoMore) {
  TempDir dir;
  write_model(dir.path(), batch_config("gqa"));
  const auto all = questionnaire(small_config("plain", 1, false).vocab_size);
  const infer::Engine roomy(dir.path(), scoring_options());
  const auto want = score(roomy, all);
  infer::EngineOptions tight = scoring_options();
  tight.caches.bytes = 12 * roomy.caches().page_bytes();  // 700 ids are 11 pages
  const infer::Engine engine(dir.path(), tight);
  for (const auto& [i, s] : score(engine, all)) EXPECT_EQ(s.loglikelihood, want.at(i).loglikelihood);
  tight.caches.bytes = 4 * roomy.caches().page_bytes();
  const infer::Engine small(dir.path(), tight);
  EXPECT_THROW(eval::score_continuations(
                   small, all, [](size_t, const ContinuationScore&) {}, false),
               Error);
}

TEST(ScoredContinuationsGreedy, TakesTheFirstOfEquallyProbableTokens) {
  TempDir dir;
  write_model(dir.path(), batch_config("gqa"));
  const infer::Engine engine(dir.path(), scoring_options());
  infer::Session session(engine, 8);
  const std::vector<int32_t> context = random_ids(5, engine.model().config.vocab_size);
  const auto logits = session.feed(context);
  const auto top = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  const int32_t other = top ? 0 : 1;
  const auto scores = score(engine, {{joined(context, {top}), 5}, {joined(context, {other}), 5}});
  EXPECT_TRUE(scores.at(0).greedy);
  EXPECT_FALSE(scores.at(1).greedy);
}

TEST(ScoredContinuationsCancelled, LeavesTheRestOut) {
  TempDir dir;
  write_model(dir.path(), batch_config("gqa"));
  const infer::Engine engine(dir.path(), scoring_options());
  const auto all = questionnaire(engine.model().config.vocab_size);
  std::atomic<bool> cancel{false};
  size_t told = 0;
  eval::score_continuations(
      engine, all, [&](size_t, const ContinuationScore&) { ++told, cancel = true; }, cancel);
  EXPECT_GT(told, 0u);
  EXPECT_LT(told, all.size());
  EXPECT_EQ(engine.caches().used(), 0);
}

}  // namespace
}  // namespace birkhoff::test
