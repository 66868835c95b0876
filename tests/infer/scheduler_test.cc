// Texts that are written together are what they are alone, whenever they come and whatever happens to others.
#include "infer/scheduler.h"

#include <algorithm>
#include <thread>

#include "core/error.h"
#include "support/model_directory.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

using infer::Engine;
using infer::Finish;
using infer::Generated;
using infer::GenerationOptions;
using infer::GenerationRequest;
using infer::Scheduler;

struct Outcome {
  std::vector<int32_t> ids;
  std::vector<double> logprobs;
  std::optional<Finish> finish;
  std::string error;
  bool operator==(const Outcome&) const = default;
};

class SchedulerTest : public testing::TestWithParam<std::string> {
 protected:
  SchedulerTest() {
    model::ModelConfig c = GetParam() == "v4" ? small_v4_config() : small_config("plain", 1, GetParam() == "latent");
    write_model(dir.path(), c);
    options.threads = 2;
    vocab = c.vocab_size;
  }
  // Prompts of many lengths, greedy and sampled; the prompt repeats itself, so that drafts are found.
  std::vector<GenerationRequest> requests() const {
    std::vector<GenerationRequest> all;
    for (const int n : {3, 70, 130, 1, 64, 20}) {
      GenerationRequest r;
      const auto ids = random_ids(static_cast<size_t>(n), vocab);
      r.prompt.assign(ids.rbegin(), ids.rend());
      r.prompt.insert(r.prompt.end(), ids.rbegin(), ids.rend());
      r.options.max_tokens = 10 + n % 7;
      r.options.sampling.temperature = n % 2 ? 0 : 0.9;
      r.options.sampling.seed = static_cast<uint64_t>(n);
      r.options.logprobs = true;
      all.push_back(std::move(r));
    }
    return all;
  }
  static void record(GenerationRequest& r, Outcome& o) {
    r.on_token = [&o](const infer::GeneratedToken& t) {
      o.ids.push_back(t.id), o.logprobs.push_back(t.logprob);
      return true;
    };
    r.on_end = [&o](const Generated& g) { o.finish = g.finish; };
    r.on_error = [&o](std::exception_ptr e) {
      try {
        std::rethrow_exception(e);
      } catch (const std::exception& error) {
        o.error = error.what();
      }
    };
  }
  Outcome alone(const Engine& engine, const GenerationRequest& r) const {
    Outcome o;
    infer::Session session(engine, static_cast<int64_t>(r.prompt.size()) + r.options.max_tokens);
    const std::atomic<bool> never{false};
    const Generated g = infer::generate(session, nullptr, r.prompt, r.options, never, [&](const auto& t) {
      o.ids.push_back(t.id), o.logprobs.push_back(t.logprob);
      return true;
    });
    o.finish = g.finish;
    return o;
  }
  TempDir dir;
  infer::EngineOptions options;
  int64_t vocab = 0;
};

TEST_P(SchedulerTest, TextsAreWhatTheyAreAlone) {
  const Engine engine(dir.path(), options);
  std::vector<Outcome> want;
  for (const GenerationRequest& r : requests()) want.push_back(alone(engine, r));
  options.caches.prefix_bytes = int64_t{1} << 24;
  const Engine other(dir.path(), options);
  for (const auto& [sessions, prompt_tokens, drafts] : {std::tuple{64, 64, 0}, {2, 7, 0}, {3, 256, 5}, {1, 1, 8}}) {
    infer::SchedulerOptions o;
    o.most_sessions = sessions, o.prompt_tokens = prompt_tokens;
    Scheduler scheduler(other, o);
    std::vector<Outcome> got(want.size());
    auto all = requests();
    for (size_t i = 0; i < all.size(); ++i) {
      record(all[i], got[i]);
      all[i].options.draft = drafts;
      scheduler.submit(std::move(all[i]));
      if (i % 2) scheduler.step();  // others come while some are at work
    }
    scheduler.run_until_idle();
    EXPECT_EQ(got, want) << sessions << " sessions, " << prompt_tokens << " prompt tokens, " << drafts << " drafts";
    const Scheduler::State state = scheduler.state();
    EXPECT_EQ(state.running + state.waiting, 0);
    EXPECT_LE(state.prompt_tokens + state.reused_tokens, 2 * (3 + 70 + 130 + 1 + 64 + 20));
  }
}

TEST_P(SchedulerTest, CancelledAndFailedTextsLeaveOthersAlone) {
  const Engine engine(dir.path(), options);
  auto all = requests();
  const Outcome want = alone(engine, all[1]);
  std::vector<Outcome> got(all.size());
  for (size_t i = 0; i < all.size(); ++i) record(all[i], got[i]);
  all[0].options.logits.mask = [](std::span<const int32_t> generated, std::span<uint32_t> allowed) {
    if (generated.size() == 2) throw Error("mask", "no way out");
    std::fill(allowed.begin(), allowed.end(), ~0u);
  };
  all[2].on_token = [](const auto& t) { return t.index < 3; };
  Scheduler scheduler(engine, {});
  std::vector<uint64_t> ids;
  for (GenerationRequest& r : all) ids.push_back(scheduler.submit(std::move(r)));
  scheduler.cancel(ids[3]);  // before it began
  for (int i = 0; i < 6; ++i) scheduler.step();
  scheduler.cancel(ids[4]);
  scheduler.cancel(1000);
  scheduler.run_until_idle();
  EXPECT_NE(got[0].error.find("no way out"), std::string::npos);
  EXPECT_EQ(got[0].ids.size(), 2u);
  EXPECT_EQ(got[1], want);
  EXPECT_EQ(got[2].finish, Finish::cancelled);
  EXPECT_EQ(got[3].finish, Finish::cancelled);
  EXPECT_TRUE(got[3].ids.empty());
  EXPECT_EQ(got[4].finish, Finish::cancelled);
  EXPECT_EQ(got[5].finish, Finish::length);
  EXPECT_EQ(engine.caches().used(), 0);
}

TEST_P(SchedulerTest, TextsWaitForMemory) {
  const int64_t one = Engine(dir.path(), options).caches().text_bytes(2 * 130 + 14);
  options.caches.bytes = one + one / 2;
  const Engine engine(dir.path(), options);
  Scheduler scheduler(engine, {});
  std::vector<Outcome> got(6);
  auto all = requests();
  for (size_t i = 0; i < all.size(); ++i) {
    record(all[i], got[i]);
    scheduler.submit(std::move(all[i]));
  }
  bool waited = false;
  while (scheduler.step()) {
    waited |= scheduler.state().waiting > 0;
    EXPECT_LE(engine.caches().used(), options.caches.bytes);
  }
  EXPECT_TRUE(waited);
  for (const Outcome& o : got) EXPECT_EQ(o.finish, Finish::length) << o.error;

  GenerationRequest large;
  large.prompt = random_ids(1, vocab);
  large.options.max_tokens = engine.max_positions() - 1;
  EXPECT_THROW(scheduler.submit(large), Error);
  large.options.max_tokens += 1;
  EXPECT_THROW(scheduler.submit(large), Error);
  large.options.max_tokens = 3, large.prompt = {static_cast<int32_t>(vocab)};
  EXPECT_THROW(scheduler.submit(large), Error);
  large.prompt = {};
  EXPECT_THROW(scheduler.submit(large), Error);
}

// Sessions of somebody else take room that is not to be promised; what is kept of prompts alone is.
TEST_P(SchedulerTest, SessionsBesideTakeTheirRoom) {
  const auto text_bytes = [&](int64_t tokens) { return Engine(dir.path(), options).caches().text_bytes(tokens); };
  auto all = requests();
  const int64_t most = text_bytes(2 * 130 + 14), beside = text_bytes(300);
  options.caches.bytes = most + beside + most / 2;
  options.caches.prefix_bytes = options.caches.bytes;
  const Engine engine(dir.path(), options);
  const auto ids = random_ids(300, vocab);
  std::vector<Outcome> got(all.size() + 1);
  Scheduler scheduler(engine, {});
  {
    infer::Session other(engine, 300);
    other.feed(ids);
    for (size_t i = 0; i < all.size(); ++i) {
      record(all[i], got[i]);
      scheduler.submit(all[i]);
    }
    scheduler.run_until_idle();
    for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(got[i].finish, Finish::length) << i << ": " << got[i].error;
    infer::Session third(engine, 300);
    third.feed(std::vector<int32_t>(ids.rbegin(), ids.rbegin() + 280));
    record(all[2], got.back());
    scheduler.submit(all[2]);
    scheduler.run_until_idle();
    EXPECT_EQ(got.back().finish, std::nullopt);
    EXPECT_NE(got.back().error.find("sessions beside"), std::string::npos) << got.back().error;
  }
  got.back() = {};
  record(all[2], got.back());
  scheduler.submit(all[2]);
  scheduler.run_until_idle();
  EXPECT_EQ(got.back(), got[2]);
}

TEST_P(SchedulerTest, OneThreadRunsAndOthersSubmit) {
  const Engine engine(dir.path(), options);
  std::vector<Outcome> want, got(6);
  for (const GenerationRequest& r : requests()) want.push_back(alone(engine, r));
  Scheduler scheduler(engine, {});
  std::atomic<int> ended{0};
  std::thread owner([&] { scheduler.run(); });
  std::vector<std::thread> callers;
  for (int half : {0, 1}) {
    callers.emplace_back([&, half] {
      auto all = requests();
      for (size_t i = static_cast<size_t>(half); i < all.size(); i += 2) {
        record(all[i], got[i]);
        const auto record_end = all[i].on_end;
        all[i].on_end = [&ended, record_end](const Generated& g) {
          record_end(g);
          ++ended;
        };
        scheduler.submit(std::move(all[i]));
      }
    });
  }
  for (std::thread& t : callers) t.join();
  while (ended < 6) std::this_thread::yield();
  scheduler.stop();
  owner.join();
  EXPECT_EQ(got, want);
}

INSTANTIATE_TEST_SUITE_P(Kinds, SchedulerTest, testing::Values("latent", "gqa", "v4"),
                         [](const auto& p) { return p.param; });

}  // namespace
}  // namespace birkhoff::test
