// Many texts written at once: prompts in pieces and tokens one by one, in passes that all of them share. What each gets
// is what it gets alone, bit for bit.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "infer/generation.h"

namespace birkhoff::infer {

struct SchedulerOptions {
  int64_t most_sessions = 64;  // that are read and written at a time; others wait
  // Tokens of prompts in a pass that writes too: what is written waits so long for what is read.
  int64_t prompt_tokens = 64;
};

struct GenerationRequest {
  const TextModel* text = nullptr;  // outlives the request; nullptr for ids alone
  std::vector<int32_t> prompt;      // at least one id
  GenerationOptions options;        // read_before is not used
  uint64_t scope = 0;               // prompts share what was read of them with those of the same scope
  // Called by whoever runs the scheduler, also by its destructor; they may submit and cancel. on_token: whether to go
  // on; what it throws ends the text.
  Generation::OnToken on_token = [](const GeneratedToken&) { return true; };
  // One of the two, once: at the end, or with what went wrong. What they throw is lost.
  std::function<void(const Generated&)> on_end;
  std::function<void(std::exception_ptr)> on_error;
};

// One thread owns engine and scheduler and runs step() or run(); any thread may submit, cancel and stop.
class Scheduler {
 public:
  Scheduler(const Engine& engine, const SchedulerOptions& options = {});
  ~Scheduler();  // texts in the making are cancelled

  // Its number, for cancel. Texts begin in the order they were submitted, as soon as the caches have room for all that
  // they may become, beside sessions that are not the scheduler's; one that has no room while no other runs ends with
  // an error. Throws Error: no such ids; a text that no cache has room for.
  uint64_t submit(GenerationRequest request);
  // Ends it before the next pass; nothing happens when it has ended.
  void cancel(uint64_t id);

  // One pass. False: there is nothing to do.
  bool step();
  void run_until_idle() {
    while (step()) {
    }
  }
  // Until stop(), waiting while there is nothing to do.
  void run();
  void stop();  // for good

  struct State {
    int64_t waiting = 0, running = 0;
    int64_t passes = 0, prompt_tokens = 0, reused_tokens = 0, written_tokens = 0;
  };
  State state() const;

 private:
  struct Text;
  void admit();
  int64_t held_by_others() const;
  static void tell_cancelled(const Text& t);
  void refuse(const Text& t) const;
  void cancel_asked();
  bool start(Text& t);
  std::vector<Text*> choose(std::vector<BatchPiece>& pieces);
  void draft_for(std::vector<Text*>& writing, size_t most);
  void take(Text& t, std::vector<std::vector<float>>& rows);
  void end(Text& t, std::exception_ptr error = nullptr);

  const Engine& engine_;
  SchedulerOptions options_;
  mutable std::mutex mutex_;  // of what any thread reaches: submitted_, cancelled_, next_id_, stopped_, state_
  std::condition_variable wake_;
  std::deque<std::unique_ptr<Text>> submitted_;
  std::set<uint64_t> cancelled_;
  uint64_t next_id_ = 0;
  bool stopped_ = false;
  State state_;
  std::list<std::unique_ptr<Text>> running_;
  int64_t reserved_ = 0;       // bytes of caches that the running texts may come to have
  uint64_t first_prompt_ = 0;  // whose turn it is to read more
};

}  // namespace birkhoff::infer
