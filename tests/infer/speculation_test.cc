#include "infer/speculation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "core/rng.h"
#include "infer/prompt_lookup.h"
#include "infer/sampling_reference.h"

namespace birkhoff::test {
namespace {

using infer::Draft;
using infer::LogitsOptions;
using infer::LogitsProcessor;
using infer::SamplerOptions;

constexpr size_t kVocab = 7;

// Logits that the text so far decides.
std::vector<float> logits_behind(const std::vector<int32_t>& text) {
  uint64_t state = 17;
  for (const int32_t id : text) state = mix64(state ^ static_cast<uint64_t>(id));
  std::vector<float> l(kVocab);
  for (size_t i = 0; i < kVocab; ++i) l[i] = static_cast<float>(1.5 * Rng(state).normal(i));
  return l;
}

LogitsOptions penalties() {
  LogitsOptions o;
  o.repetition_penalty = 1.2, o.presence_penalty = 0.5, o.bias = {{2, 0.7}};
  o.mask = [](std::span<const int32_t> generated, std::span<uint32_t> allowed) {
    allowed[0] = generated.size() % 2 ? 0x7f : 0x6f;
  };
  return o;
}

std::vector<int32_t> plain(const SamplerOptions& o, const LogitsOptions& logits_options, size_t count) {
  LogitsProcessor processor(logits_options, {});
  std::vector<int32_t> text, ids;
  std::vector<float> buffer;
  while (text.size() < count) {
    const std::vector<float> l = logits_behind(text);
    text.push_back(infer::sample(processor.process(l, buffer), o, text.size(), ids));
    processor.accept(text.back());
  }
  return text;
}

// A text in passes of a draft each; `accepted` counts the passes' tokens of the draft.
std::vector<int32_t> speculative(const SamplerOptions& o, const LogitsOptions& logits_options, size_t count,
                                 const std::function<Draft(const std::vector<int32_t>&)>& drafted, size_t& accepted) {
  LogitsProcessor processor(logits_options, {});
  infer::SpeculationBuffers buffers;
  std::vector<int32_t> text;
  while (text.size() < count) {
    const Draft draft = drafted(text);
    std::vector<float> l;
    const auto row = [&](size_t i) {
      std::vector<int32_t> behind = text;
      behind.insert(behind.end(), draft.ids.begin(), draft.ids.begin() + static_cast<std::ptrdiff_t>(i));
      l = logits_behind(behind);
      return std::span<const float>(l);
    };
    const std::vector<int32_t> more = infer::verify(draft, row, processor, o, text.size(), buffers);
    EXPECT_GE(more.size(), 1u);
    EXPECT_LE(more.size(), draft.ids.size() + 1);
    for (size_t i = 0; i + 1 < more.size(); ++i) EXPECT_EQ(more[i], draft.ids[i]) << "what was accepted";
    accepted += more.size() - 1;
    text.insert(text.end(), more.begin(), more.end());
  }
  text.resize(count);
  return text;
}

// Drafts of a drafter that knows nothing, of any length.
Draft guessed(const std::vector<int32_t>& text) {
  Draft d;
  for (uint64_t i = 0; i < text.size() % 5; ++i) d.ids.push_back(static_cast<int32_t>(mix64(text.size() + i) % kVocab));
  return d;
}

TEST(Speculation, ADraftWithoutADrawLeavesEveryTokenAsItWas) {
  for (const bool with_penalties : {false, true})
    for (const double temperature : {0.0, 0.8})
      for (uint64_t seed = 1; seed < 4; ++seed) {
        const LogitsOptions l = with_penalties ? penalties() : LogitsOptions{};
        SamplerOptions o;
        o.temperature = temperature, o.seed = seed, o.top_p = 0.95, o.typical_p = 0.9;
        const std::vector<int32_t> want = plain(o, l, 200);
        size_t accepted = 0, all = 0;
        EXPECT_EQ(speculative(o, l, 200, guessed, accepted), want);
        EXPECT_GT(accepted, 0u);
        const auto oracle = [&](const std::vector<int32_t>& text) {
          Draft d;
          for (size_t i = text.size(); i < std::min(text.size() + 4, want.size()); ++i) d.ids.push_back(want[i]);
          return d;
        };
        EXPECT_EQ(speculative(o, l, 200, oracle, all), want);
        EXPECT_EQ(all, 160u) << "four of five are the draft's";
      }
}

// Pairs of tokens, drawn from drafts of a model that is another one, against the product of the model's conditionals.
TEST(Speculation, DrawnDraftsKeepTheDistribution) {
  const std::vector<float> p[2] = {logits_behind({1}), logits_behind({2})},
                           q[2] = {logits_behind({3}), logits_behind({4})};
  for (const SamplerOptions& limits : limits_of_sampling()) {
    SCOPED_TRACE(text_of(limits));
    SamplerOptions drafts;
    drafts.temperature = 1.3;
    std::vector<double> rows;
    for (const auto& row : q) {
      const std::vector<double> of_row = sampling_reference(row, drafts);
      rows.insert(rows.end(), of_row.begin(), of_row.end());
    }
    const std::vector<double> first = sampling_reference(p[0], limits), second = sampling_reference(p[1], limits);
    std::vector<int64_t> firsts(kVocab), seconds(kVocab);
    infer::SpeculationBuffers buffers;
    const LogitsOptions none;
    int64_t accepted = 0;
    constexpr uint64_t kDraws = 5000;
    for (uint64_t i = 0; i < kDraws; ++i) {
      drafts.seed = i + 1;
      Draft d;
      for (uint64_t at = 0; at < 2; ++at) d.ids.push_back(infer::sample(q[at], drafts, at, buffers.ids));
      d.q = rows;
      LogitsProcessor processor(none, {});
      SamplerOptions o = limits;
      o.seed = 77 + i;
      const auto row = [&](size_t at) { return std::span<const float>(p[std::min<size_t>(at, 1)]); };
      const std::vector<int32_t> got = infer::verify(d, row, processor, o, 0, buffers);
      ++firsts[static_cast<size_t>(got[0])];
      if (got.size() > 1) ++seconds[static_cast<size_t>(got[1])], ++accepted;
      ASSERT_EQ(infer::verify(d, row, processor, o, 0, buffers), got) << "the same again";
    }
    expect_drawn_from(first, firsts);
    if (accepted > 0) expect_drawn_from(second, seconds);
    double overlap = 0;  // accepted with probability sum min(p, q)
    for (size_t i = 0; i < kVocab; ++i) overlap += std::min(first[i], rows[i]);
    EXPECT_NEAR(static_cast<double>(accepted) / kDraws, overlap, 5 * std::sqrt(0.25 / kDraws));
  }
}

TEST(Speculation, ADraftOfTheModelItselfIsAlwaysAccepted) {
  const std::vector<float> l = logits_behind({});
  SamplerOptions o;
  o.top_k = 4;
  infer::SpeculationBuffers buffers;
  std::vector<double> q(kVocab);
  infer::probabilities(l, o, buffers.ids, q);
  for (uint64_t i = 0; i < 500; ++i) {
    const int32_t id = infer::sample(l, o, i, buffers.ids);
    ASSERT_EQ(infer::sample_speculatively(l, id, q, o, i + 1000, buffers), id);
  }
}

TEST(Speculation, EndsWhereItIsTold) {
  SamplerOptions o;
  o.temperature = 0;
  const LogitsOptions none;
  const std::vector<int32_t> want = plain(o, none, 6);
  LogitsProcessor processor(none, {});
  infer::SpeculationBuffers buffers;
  std::vector<float> l;
  std::vector<int32_t> told;
  const auto row = [&](size_t i) {
    l = logits_behind({want.begin(), want.begin() + static_cast<std::ptrdiff_t>(i)});
    return std::span<const float>(l);
  };
  const auto stop_at_third = [&](int32_t id) { return told.push_back(id), told.size() < 3; };
  const std::vector<int32_t> got = infer::verify({want, {}}, row, processor, o, 0, buffers, stop_at_third);
  EXPECT_EQ(got, std::vector<int32_t>(want.begin(), want.begin() + 3));
  EXPECT_EQ(told, got);
}

// As PromptLookup is defined, for texts that fit its tables.
std::vector<int32_t> looked_up(const std::vector<int32_t>& text, size_t most) {
  for (size_t n = std::min<size_t>(4, text.size()); n >= 2; --n)
    for (size_t end = text.size() - 1; end >= n; --end)
      if (std::equal(text.end() - static_cast<std::ptrdiff_t>(n), text.end(),
                     text.begin() + static_cast<std::ptrdiff_t>(end - n))) {
        std::vector<int32_t> all = text;
        while (all.size() < text.size() + most) all.push_back(all[end + all.size() - text.size()]);
        return {all.begin() + static_cast<std::ptrdiff_t>(text.size()), all.end()};
      }
  return {};
}

TEST(PromptLookup, GoesOnAsTheLatestPlaceOfTheLongestDid) {
  infer::PromptLookup lookup;
  EXPECT_TRUE(lookup.draft().empty());
  lookup.append(std::vector<int32_t>{1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3});
  EXPECT_EQ(lookup.draft(3), (std::vector<int32_t>{4, 9, 2})) << "three ids, though two are nearer";
  lookup.append(std::vector<int32_t>{7, 2, 3});
  EXPECT_EQ(lookup.draft(2), (std::vector<int32_t>{7, 2}));
  infer::PromptLookup round;
  round.append(std::vector<int32_t>{5, 6, 5, 6});
  EXPECT_EQ(round.draft(5), (std::vector<int32_t>{5, 6, 5, 6, 5}));
}

TEST(PromptLookup, IsItsDefinition) {
  infer::PromptLookup lookup;
  std::vector<int32_t> text;
  size_t same = 0;
  for (uint64_t i = 0; i < 1500; ++i) {
    const auto id = static_cast<int32_t>(Rng(3).bits(i) % 6);
    text.push_back(id);
    lookup.append({&id, 1});
    const std::vector<int32_t> got = lookup.draft(4);
    same += got == looked_up(text, 4);
    if (got.empty()) continue;
    // Where another n-gram has taken the slot it is an older place or a shorter n-gram, but one that has been there.
    ASSERT_EQ(got.size(), 4u);
    std::vector<int32_t> all = text;
    all.insert(all.end(), got.begin(), got.end());
    ASSERT_LT(std::search(all.begin(), all.end(), all.end() - 6, all.end()), all.end() - 6) << "at " << i;
  }
  EXPECT_GT(same, 1200u);
}

TEST(PromptLookup, GoesBackAndStaysSmall) {
  infer::PromptLookup lookup;
  std::vector<int32_t> text;
  for (uint64_t i = 0; i < 200000; ++i) text.push_back(static_cast<int32_t>(Rng(4).bits(i) % 100000));
  lookup.append(text);
  lookup.append(std::span(text).subspan(199000, 4));
  EXPECT_EQ(lookup.draft(8), std::vector<int32_t>(text.begin() + 199004, text.begin() + 199012));
  lookup.rewind(100);
  EXPECT_EQ(lookup.length(), 100u);
  lookup.append(std::span(text).subspan(199000, 4));
  EXPECT_TRUE(lookup.draft().empty()) << "what was taken back is not there";
  lookup.append(std::span(text).subspan(199000, 4));
  EXPECT_EQ(lookup.draft(2), std::vector<int32_t>(text.begin() + 199000, text.begin() + 199002));
}

}  // namespace
}  // namespace birkhoff::test
