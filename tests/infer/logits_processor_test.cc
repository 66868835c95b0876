#include "infer/logits_processor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "core/rng.h"
#include "infer/sampling_reference.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

using infer::LogitsOptions;
using infer::LogitsProcessor;

std::vector<float> processed(LogitsProcessor& processor, const std::vector<float>& logits) {
  std::vector<float> buffer;
  const std::span<const float> out = processor.process(logits, buffer);
  return {out.begin(), out.end()};
}

TEST(LogitsProcessor, DoesNothingUnasked) {
  const std::vector<int32_t> prompt = {1, 2};
  const LogitsOptions o;
  LogitsProcessor processor(o, prompt);
  processor.accept(1);
  const std::vector<float> l = {1, 2, 3};
  std::vector<float> buffer;
  EXPECT_EQ(processor.process(l, buffer).data(), l.data()) << "not even a copy";
}

TEST(LogitsProcessor, RepetitionCountsPromptAndTextOnce) {
  LogitsOptions o;
  o.repetition_penalty = 2;
  const std::vector<int32_t> prompt = {0, 3, 3};
  LogitsProcessor processor(o, prompt);
  EXPECT_EQ(processed(processor, {4, 4, -1, -1, 0}), (std::vector<float>{2, 4, -1, -2, 0}));
  processor.accept(1);
  processor.accept(1);
  EXPECT_EQ(processed(processor, {4, 4, -1, -1, 0}), (std::vector<float>{2, 2, -1, -2, 0}));
}

TEST(LogitsProcessor, PresenceAndFrequencyCountTheTextAlone) {
  LogitsOptions o;
  o.presence_penalty = 0.5, o.frequency_penalty = -0.25;
  const std::vector<int32_t> prompt = {0, 0};
  LogitsProcessor processor(o, prompt);
  EXPECT_EQ(processed(processor, {1, 1, 1}), (std::vector<float>{1, 1, 1}));
  for (const int32_t id : {1, 2, 2, 2}) processor.accept(id);
  EXPECT_EQ(processed(processor, {1, 1, 1}), (std::vector<float>{1, 0.75f, 1.25f}));
}

TEST(LogitsProcessor, BiasesAddAndBan) {
  LogitsOptions o;
  o.bias = {{0, 1.5}, {2, -100}, {0, 1}, {1, -99.5}};
  LogitsProcessor processor(o, {});
  EXPECT_EQ(processed(processor, {1, 2, 3}), (std::vector<float>{3.5f, -97.5f, -INFINITY}));
  expect_error([&] { processed(processor, {1, 2}); }, {"logit-bias", "id 2", "0 to 1"}, ExitCode::usage);
}

TEST(LogitsProcessor, TheMaskHearsTheTextAndHidesTheRest) {
  LogitsOptions o;
  std::vector<std::vector<int32_t>> heard;
  o.mask = [&](std::span<const int32_t> generated, std::span<uint32_t> allowed) {
    heard.emplace_back(generated.begin(), generated.end());
    ASSERT_EQ(allowed.size(), 3u);
    for (const uint32_t word : allowed) ASSERT_EQ(word, 0u);
    for (const uint32_t id : {3u, 31u, 32u, 69u}) allowed[id / 32] |= 1u << id % 32;
  };
  const std::vector<int32_t> prompt = {9}, banned = {31};
  LogitsProcessor processor(o, prompt, banned);
  for (const int32_t next : {32, 3}) {
    const std::vector<float> l = processed(processor, std::vector<float>(70, 1.f));
    for (size_t id = 0; id < 70; ++id)
      ASSERT_EQ(l[id], id == 3 || id == 32 || id == 69 ? 1.f : -INFINITY) << "id " << id;
    processor.accept(next);
  }
  EXPECT_EQ(heard, (std::vector<std::vector<int32_t>>{{}, {32}}));
}

TEST(LogitsProcessor, NothingLeftIsAnError) {
  LogitsOptions o;
  o.mask = [](std::span<const int32_t> generated, std::span<uint32_t> allowed) {
    allowed[0] = generated.empty() ? 6 : 0;
  };
  const std::vector<int32_t> banned = {1};
  LogitsProcessor processor(o, {}, banned);
  EXPECT_EQ(processed(processor, {1, 2, 3}), (std::vector<float>{-INFINITY, -INFINITY, 3}));
  processor.accept(2);
  expect_error([&] { processed(processor, {1, 2, 3}); }, {"no id of 3", "token 1", "mask allows 0"});
  LogitsOptions all;
  all.bias = {{0, -100}, {1, -100}};
  LogitsProcessor none(all, {});
  expect_error([&] { processed(none, {1, 2}); }, {"no id of 2"});
}

// All at once, over a text that is drawn: what the formula says, and each of two texts for itself.
TEST(LogitsProcessor, IsTheFormula) {
  LogitsOptions o;
  o.repetition_penalty = 1.3, o.presence_penalty = 0.4, o.frequency_penalty = 0.2;
  o.bias = {{4, 1.25}, {7, -0.5}};
  const std::vector<int32_t> prompts[] = {{1, 4, 4}, {2, 7}};
  LogitsProcessor processors[] = {LogitsProcessor(o, prompts[0]), LogitsProcessor(o, prompts[1])};
  std::map<size_t, int> counts[2];
  for (uint64_t step = 0; step < 40; ++step)
    for (size_t text = 0; text < 2; ++text) {
      std::vector<float> l(10);
      for (size_t i = 0; i < l.size(); ++i) l[i] = static_cast<float>(Rng(step).normal(2 * i + text));
      const std::vector<float> got = processed(processors[text], l);
      for (size_t i = 0; i < l.size(); ++i) {
        double x = l[i] + (i == 4 ? 1.25 : i == 7 ? -0.5 : 0);
        const bool in_prompt = std::count(prompts[text].begin(), prompts[text].end(), static_cast<int32_t>(i)) > 0;
        if (in_prompt || counts[text][i]) x = x > 0 ? x / 1.3 : x * 1.3;
        x -= (counts[text][i] ? 0.4 : 0) + 0.2 * counts[text][i];
        ASSERT_NEAR(got[i], x, 2e-6 * (1 + std::fabs(x))) << "id " << i << " of text " << text << " at " << step;
      }
      const size_t next = (3 * step + 5 * text) % 10;
      processors[text].accept(static_cast<int32_t>(next));
      ++counts[text][next];
    }
}

TEST(LogitsProcessor, DrawsFollowWhatItSays) {
  LogitsOptions o;
  o.repetition_penalty = 1.5, o.presence_penalty = 0.7, o.bias = {{2, 2}, {3, -100}};
  o.mask = [](std::span<const int32_t>, std::span<uint32_t> allowed) { allowed[0] = 0xdf; };
  LogitsProcessor processor(o, {});
  processor.accept(1);
  const std::vector<float> l = processed(processor, {1, 2, -1, 1, 0.5f, 4, 0, -2});
  std::vector<int32_t> buffer;
  for (const infer::SamplerOptions& limits : limits_of_sampling()) {
    SCOPED_TRACE(text_of(limits));
    const std::vector<double> want = sampling_reference(l, limits);
    EXPECT_EQ(want[3] + want[5], 0);
    std::vector<int64_t> counts(l.size());
    for (uint64_t i = 0; i < 5000; ++i) ++counts[static_cast<size_t>(infer::sample(l, limits, i, buffer))];
    expect_drawn_from(want, counts);
  }
}

TEST(LogitsProcessor, RefusesBadOptions) {
  const auto refused = [](auto&& set, const char* name) {
    LogitsOptions o;
    set(o);
    expect_error([&] { infer::validate(o); }, {name}, ExitCode::usage);
  };
  for (const double p : {0.0, -1.0, static_cast<double>(NAN), static_cast<double>(INFINITY)})
    refused([&](LogitsOptions& o) { o.repetition_penalty = p; }, "repetition-penalty");
  for (const double p : {-2.1, 2.1, static_cast<double>(NAN)}) {
    refused([&](LogitsOptions& o) { o.presence_penalty = p; }, "presence-penalty");
    refused([&](LogitsOptions& o) { o.frequency_penalty = p; }, "frequency-penalty");
  }
  for (const double bias : {-100.5, 101.0, static_cast<double>(NAN)})
    refused([&](LogitsOptions& o) { o.bias = {{1, 0}, {17, bias}}; }, "id 17");
}

}  // namespace
}  // namespace birkhoff::test
