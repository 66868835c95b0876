// The loop of decoding: what ends a text, what a token is told to have been, and that every verb says the same.
#include "infer/generation.h"

#include <gtest/gtest.h>

#include <cmath>

#include "infer/conversation.h"
#include "support/temp_dir.h"
#include "support/tokenized_model.h"

namespace birkhoff::test {
namespace {

using infer::Engine;
using infer::Finish;
using infer::GeneratedToken;
using infer::GenerationOptions;

const std::atomic<bool> kNever{false};

// A model whose text is written in advance: every logits prefer the next id of a script.
class Script {
 public:
  Script(std::vector<int32_t> ids, int64_t vocab) : ids_(std::move(ids)), logits_(static_cast<size_t>(vocab)) {}
  infer::Feed feed() {
    return [this](std::span<const int32_t> ids, infer::TokenRole role) {
      roles.push_back(role);
      fed.insert(fed.end(), ids.begin(), ids.end());
      std::fill(logits_.begin(), logits_.end(), 0.f);
      if (at_ < ids_.size()) logits_[static_cast<size_t>(ids_[at_++])] = 5.f;
      return std::span<const float>(logits_);
    };
  }
  std::vector<int32_t> fed;
  std::vector<infer::TokenRole> roles;  // of every call

 private:
  std::vector<int32_t> ids_;
  std::vector<float> logits_;
  size_t at_ = 0;
};

GenerationOptions greedy(int64_t tokens) {
  GenerationOptions o;
  o.sampling.temperature = 0;
  o.max_tokens = tokens;
  return o;
}

struct Written {
  infer::Generated result;
  std::string text;
  std::vector<int32_t> ids;
  std::vector<double> logprobs;
  std::vector<std::vector<std::pair<int32_t, double>>> top;
};
Written run(const infer::Feed& feed, const infer::TextModel* model, const std::vector<int32_t>& prompt,
            const GenerationOptions& o) {
  Written w;
  w.result = infer::generate(feed, model, prompt, o, kNever, [&](const GeneratedToken& t) {
    EXPECT_EQ(t.index, static_cast<int64_t>(w.ids.size()));
    w.ids.push_back(t.id);
    w.text += t.text;
    w.logprobs.push_back(t.logprob);
    w.top.push_back(t.top);
    return true;
  });
  w.text += w.result.rest;
  return w;
}

struct GenerationTest : testing::Test {
  TempDir dir;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<infer::TextModel> model;

  GenerationTest() {
    write_tokenized_model(dir.path(), "v3", 0);
    infer::EngineOptions o;
    o.compute = "fp32", o.threads = 2, o.max_positions = 400;
    o.latent_attention = model::LatentAttention::expanded;  // the bits of the full forward
    engine = std::make_unique<Engine>(dir.path(), o);
    model = std::make_unique<infer::TextModel>(*engine);
  }
  std::vector<int32_t> encode(const std::string& text) const { return model->tokenizer()->encode(text); }
  Written scripted(const std::string& text, const GenerationOptions& o) const {
    Script script(encode(text), engine->model().config.vocab_size);
    return run(script.feed(), model.get(), {5}, o);
  }
};

TEST_F(GenerationTest, StopStringsEndTheTextWhereverTokensDo) {
  const std::string text = "The quick brown fox jumps over the lazy dog";
  const auto tokens = static_cast<int64_t>(encode(text).size());
  ASSERT_GT(tokens, 5);
  EXPECT_EQ(scripted(text, greedy(tokens)).text, text);
  for (size_t at = 0; at < text.size(); ++at) {
    for (const size_t length : {1, 2, 7, 12}) {
      if (at + length > text.size()) continue;
      GenerationOptions o = greedy(tokens);
      o.stop = {"never written", "", text.substr(at, length), text};
      const size_t end = text.find(o.stop[2]) + length;
      const Written w = scripted(text, o);
      ASSERT_EQ(w.text, text.substr(0, end)) << "stop \"" << o.stop[2] << "\"";
      ASSERT_EQ(w.result.finish, Finish::stop);
      ASSERT_EQ(w.result.tokens, static_cast<int64_t>(w.ids.size())) << "the token that holds the stop counts";
    }
  }
}

TEST_F(GenerationTest, TheStopThatEndsFirstCounts) {
  GenerationOptions o = greedy(20);
  o.stop = {"jumps over", "fox", "quick brown fox jumps"};
  EXPECT_EQ(scripted("The quick brown fox jumps over", o).text, "The quick brown fox");
}

TEST_F(GenerationTest, AStopThatIsNoPartOfTheText) {
  const std::string text = "The quick brown fox jumps over the lazy dog";
  GenerationOptions o = greedy(30);
  o.stop = {"lazy cat", "fox jumps"}, o.stop_in_text = false;
  const Written w = scripted(text, o);
  EXPECT_EQ(w.text, "The quick brown ");
  EXPECT_EQ(w.result.finish, Finish::stop);
  o.max_tokens = static_cast<int64_t>(encode(text).size()), o.stop = {"lazy cat", "dogs"};
  EXPECT_EQ(scripted(text, o).text, text) << "what was held back is said at the end";
}

TEST_F(GenerationTest, EndsLengthAndTurns) {
  const std::vector<int32_t> words = encode("one two");
  const int32_t eos = *model->tokenizer()->eos(), turn = encode("|").front();
  std::vector<int32_t> ids = words;
  ids.insert(ids.end(), {eos, turn, words[0]});
  const auto n = static_cast<int64_t>(ids.size()), before = static_cast<int64_t>(words.size());
  const auto said = [&](const GenerationOptions& o) {
    Script script(ids, engine->model().config.vocab_size);
    const Written w = run(script.feed(), model.get(), {5}, o);
    EXPECT_EQ(static_cast<int64_t>(script.fed.size()), w.result.tokens) << "the prompt's one, and all but the last";
    return w;
  };
  const Written ended = said(greedy(n));
  EXPECT_EQ(ended.result.finish, Finish::end);
  EXPECT_EQ(ended.result.tokens, before + 1) << "the end counts";
  EXPECT_EQ(ended.text, "one two");
  EXPECT_EQ(said(greedy(before)).result.finish, Finish::length);
  EXPECT_EQ(said(greedy(before + 1)).result.finish, Finish::end);
  GenerationOptions o = greedy(n);
  o.through_ends = true;
  EXPECT_EQ(said(o).text, "one two|one");
  o.turn_end = turn;
  EXPECT_EQ(said(o).text, "one twoone") << "an end has no text";
  o.through_ends = false;
  ids.erase(ids.begin() + before);
  EXPECT_EQ(said(o).text, "one two");
  EXPECT_EQ(said(o).result.finish, Finish::end);
}

TEST_F(GenerationTest, IdsAloneHaveNoEnds) {
  Script script({*model->tokenizer()->eos(), 3, 4}, engine->model().config.vocab_size);
  GenerationOptions o = greedy(3);
  o.stop = {"a"};
  const Written w = run(script.feed(), nullptr, {5}, o);
  EXPECT_EQ(w.ids, (std::vector<int32_t>{*model->tokenizer()->eos(), 3, 4}));
  EXPECT_EQ(w.text, "");
  EXPECT_EQ(w.result.finish, Finish::length);
}

TEST_F(GenerationTest, WhatItDrawsIsFedAsItsOwn) {
  Script script({4, 4, 4}, engine->model().config.vocab_size);
  run(script.feed(), nullptr, std::vector<int32_t>(Engine::kPassTokens + 44, 5), greedy(3));
  using enum infer::TokenRole;
  EXPECT_EQ(script.roles, (std::vector<infer::TokenRole>{prompt, prompt, generated, generated}));
}

TEST_F(GenerationTest, Cancelled) {
  std::atomic<bool> cancel{false};
  const std::vector<int32_t> prompt(2 * Engine::kPassTokens + 188, 6);
  Script script(encode("one two three four five six"), engine->model().config.vocab_size);
  const auto feed = script.feed();
  int64_t calls = 0;
  const infer::Feed counting = [&](std::span<const int32_t> ids, infer::TokenRole role) {
    if (++calls == 2) cancel = true;
    return feed(ids, role);
  };
  const auto none = [](const GeneratedToken&) { return true; };
  infer::Generated g = infer::generate(counting, model.get(), prompt, greedy(5), cancel, none);
  EXPECT_EQ(g.finish, Finish::cancelled);
  EXPECT_EQ(g.tokens, 0);
  EXPECT_EQ(calls, 2) << "the rest of the prompt was not read";

  cancel = false;
  g = infer::generate(feed, model.get(), prompt, greedy(5), cancel, [&](const GeneratedToken& t) {
    cancel = t.index == 2;
    return true;
  });
  EXPECT_EQ(g.finish, Finish::cancelled);
  EXPECT_EQ(g.tokens, 3);

  cancel = false;
  g = infer::generate(feed, model.get(), prompt, greedy(5), cancel,
                      [&](const GeneratedToken& t) { return t.index < 1; });
  EXPECT_EQ(g.finish, Finish::cancelled);
  EXPECT_EQ(g.tokens, 2);
}

// Of the model's own distribution, whatever was drawn from.
TEST_F(GenerationTest, LogprobsAreThoseOfTheFullForward) {
  GenerationOptions o;
  o.max_tokens = 25, o.logprobs = true, o.top_logprobs = 4, o.through_ends = true;
  o.sampling.temperature = 0.7, o.sampling.top_k = 50, o.logits.repetition_penalty = 1.3;
  const std::vector<int32_t> prompt = {7, 30, 12, 9};
  infer::Session session(*engine, 100);
  const Written w = run(infer::feed_of(session), model.get(), prompt, o);
  std::vector<int32_t> all = prompt;
  all.insert(all.end(), w.ids.begin(), w.ids.end());
  engine->full_logits(all, [&](int64_t t, std::span<const float> row) {
    const int64_t i = t + 1 - static_cast<int64_t>(prompt.size());
    if (i < 0 || i >= o.max_tokens) return;
    long double sum = 0;
    for (const float x : row) sum += std::exp(static_cast<long double>(x));
    const auto logprob = [&](int32_t id) { return static_cast<double>(row[static_cast<size_t>(id)] - std::log(sum)); };
    const auto k = static_cast<size_t>(i);
    // Terms of fp32 within 1.5 ulp, summed in fp32 in at least four parts, as training sums them.
    const double tolerance = static_cast<double>(row.size()) / 4 * 0x1p-24 + 4e-7;
    EXPECT_NEAR(w.logprobs[k], logprob(w.ids[k]), tolerance) << "token " << i;
    ASSERT_EQ(w.top[k].size(), 4u);
    std::vector<float> sorted(row.begin(), row.end());
    std::sort(sorted.rbegin(), sorted.rend());
    for (size_t j = 0; j < 4; ++j) {
      EXPECT_EQ(row[static_cast<size_t>(w.top[k][j].first)], sorted[j]);
      EXPECT_NEAR(w.top[k][j].second, logprob(w.top[k][j].first), tolerance);
    }
  });
}

TEST(Generation, RepetitionPenaltyHoldsForPromptAndText) {
  const std::vector<float> logits = {3, 2.5f, -1, -2, 2};
  const infer::Feed feed = [&](std::span<const int32_t>, infer::TokenRole) { return std::span<const float>(logits); };
  GenerationOptions o = greedy(5);
  o.logits.repetition_penalty = 2;
  // 0 was in the prompt: 3 / 2. 1, then 4; then all are as if once halved: 0 at 1.5 is ahead of 1.25 and 1.
  EXPECT_EQ(run(feed, nullptr, {0, 0}, o).ids, (std::vector<int32_t>{1, 4, 0, 0, 0}));
  o.logits.repetition_penalty = 1;
  EXPECT_EQ(run(feed, nullptr, {0}, o).ids, (std::vector<int32_t>(5, 0)));
  const std::vector<float> negative = {-1, -1.5f, -3};
  const infer::Feed below = [&](std::span<const int32_t>, infer::TokenRole) {
    return std::span<const float>(negative);
  };
  o.logits.repetition_penalty = 2;
  EXPECT_EQ(run(below, nullptr, {0}, o).ids[0], 1) << "-1 becomes -2";
}

TEST(Generation, PenaltiesCountWhatWasRead) {
  const std::vector<float> logits = {3, 2.5f, 2};
  const infer::Feed feed = [&](std::span<const int32_t>, infer::TokenRole) { return std::span<const float>(logits); };
  GenerationOptions o = greedy(3);
  const std::vector<int32_t> before = {0};
  o.read_before = before, o.logits.repetition_penalty = 2;
  EXPECT_EQ(run(feed, nullptr, {1}, o).ids, (std::vector<int32_t>{2, 0, 0}));
  o = greedy(6), o.logits.frequency_penalty = 0.3;  // 3 2.7 2.4 ... beside 2.5 2.2 ... and 2
  EXPECT_EQ(run(feed, nullptr, {0, 0, 0}, o).ids, (std::vector<int32_t>{0, 0, 1, 0, 1, 0}));
}

TEST_F(GenerationTest, EndsMayBeAllThatAMaskAllows) {
  const int32_t eos = *model->tokenizer()->eos();
  GenerationOptions o;
  o.max_tokens = 9;
  o.logits.mask = [&](std::span<const int32_t> generated, std::span<uint32_t> allowed) {
    const auto id = generated.size() < 2 ? 30u : static_cast<uint32_t>(eos);
    allowed[id / 32] |= 1u << id % 32;
  };
  infer::Session session(*engine, 60);
  const Written w = run(infer::feed_of(session), model.get(), {7, 9}, o);
  EXPECT_EQ(w.ids, (std::vector<int32_t>{30, 30, eos}));
  EXPECT_EQ(w.result.finish, Finish::end);
}

TEST_F(GenerationTest, EveryDrawIsThatOfTheSampler) {
  GenerationOptions o;
  o.max_tokens = 12, o.first_draw = 40, o.sampling.seed = 9;
  const std::vector<int32_t> prompt = {7, 30, 12};
  infer::Session session(*engine, 60), again(*engine, 60);
  const Written w = run(infer::feed_of(session), nullptr, prompt, o);
  std::vector<int32_t> buffer;
  std::span<const float> logits = again.feed(prompt);
  for (size_t i = 0; i < w.ids.size(); ++i) {
    ASSERT_EQ(w.ids[i], infer::sample(logits, o.sampling, 40 + i, buffer));
    logits = again.feed({&w.ids[i], 1}, infer::TokenRole::generated);
  }
}

// A chat's answer is the continuation of its prompt.
TEST_F(GenerationTest, AConversationSaysWhatIsGenerated) {
  infer::Conversation c(*engine,
                        text::chat::ChatFormat::from_template(
                            "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>"));
  c.add_user("Why?");
  infer::ReplyOptions reply;
  reply.max_tokens = 30;
  reply.sampling.seed = 4;
  std::string said;
  const infer::Reply r = c.reply(reply, kNever, [&](const text::chat::Answer& delta) { said += delta.content; });
  GenerationOptions o;
  o.sampling.seed = 4, o.max_tokens = 30, o.special = true;
  infer::Session session(*engine, 100);
  const Written w = run(infer::feed_of(session), model.get(), encode("<|user|>Why?<|assistant|>"), o);
  EXPECT_EQ(said, w.text);
  EXPECT_EQ(r.tokens, w.result.tokens);
}

TEST(Generation, RefusesBadOptions) {
  GenerationOptions o = greedy(-1);
  expect_error([&] { infer::validate(o); }, {"count", "-1"}, ExitCode::usage);
  o = greedy(1), o.top_logprobs = -2;
  expect_error([&] { infer::validate(o); }, {"top-logprobs", "-2"}, ExitCode::usage);
  for (const double penalty : {0.0, -1.0, static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
    o = greedy(1), o.logits.repetition_penalty = penalty;
    expect_error([&] { infer::validate(o); }, {"repetition-penalty"}, ExitCode::usage);
  }
}

}  // namespace
}  // namespace birkhoff::test
