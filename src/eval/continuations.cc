#include "eval/continuations.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <optional>

#include "core/error.h"
#include "infer/prefix_cache.h"
#include "infer/session.h"
#include "ops/rows/cross_entropy.h"

namespace birkhoff::eval {
namespace {

// The most probable one, the first of equals.
bool is_greedy(std::span<const float> logits, int32_t id) {
  const auto at = static_cast<size_t>(id);
  const float top = logits[at];
  for (size_t i = 0; i < logits.size(); ++i)
    if (logits[i] > top || (logits[i] == top && i < at)) return false;
  return true;
}

// Continuations order_[begin .. end) have their first `until` ids in common, of which `read` are in the session.
struct Branch {
  size_t begin, end;
  int64_t read, until;
  int64_t first_row;                      // the first position whose logits one of them asks for
  std::shared_ptr<infer::Session> trunk;  // what was read before it branched off; nothing at the root
  std::optional<infer::Session> session;
};

struct Reading {
  size_t branch;  // of the stack
  int64_t tokens;
};

class PrefixWalk {
 public:
  PrefixWalk(const infer::Engine& engine, std::span<const Continuation> all,
             const std::function<void(size_t, const ContinuationScore&)>& done)
      : engine_(engine), all_(all), done_(done), order_(all.size()), scores_(all.size()) {
    for (const Continuation& c : all) BK_CHECK(c.first > 0 && c.first < c.ids.size());
    std::iota(order_.begin(), order_.end(), size_t{0});
    std::sort(order_.begin(), order_.end(), [&](size_t a, size_t b) {
      const auto x = fed(a), y = fed(b);
      const auto [i, j] = std::mismatch(x.begin(), x.end(), y.begin(), y.end());
      if (i != x.end() && j != y.end()) return *i < *j;
      return x.size() != y.size() ? x.size() < y.size() : a < b;
    });
    push_branches(0, order_.size(), 0, nullptr);
  }

  bool done() const { return stack_.empty(); }
  const ReadCounts& counts() const { return counts_; }

  void pass() {
    const std::vector<Reading> readings = choose();
    std::vector<infer::BatchPiece> pieces;
    for (const Reading& r : readings) pieces.push_back(piece_of(r));
    infer::run_batch(engine_, pieces, [&](size_t piece, int64_t token, std::span<const float> logits) {
      const Branch& b = stack_[readings[piece].branch];
      take_row(b, b.read + token, logits);
    });
    ++counts_.passes;
    advance(readings);
  }

 private:
  // What the model reads of one: its last id is only predicted.
  std::span<const int32_t> fed(size_t i) const { return std::span(all_[i].ids).first(all_[i].ids.size() - 1); }
  int64_t length(size_t at) const { return static_cast<int64_t>(all_[order_[at]].ids.size()) - 1; }

  // A branch for every id that follows the first `read` ones of order_[begin .. end); the first of order is the last of
  // the stack.
  void push_branches(size_t begin, size_t end, int64_t read, std::shared_ptr<infer::Session> trunk) {
    std::vector<Branch> branches;
    while (begin < end) {
      const int32_t id = fed(order_[begin])[static_cast<size_t>(read)];
      size_t last = begin + 1;
      while (last < end && fed(order_[last])[static_cast<size_t>(read)] == id) ++last;
      branches.push_back(branch(begin, last, read, trunk));
      begin = last;
    }
    trunk.reset();
    std::move(branches.rbegin(), branches.rend(), std::back_inserter(stack_));
  }

  // In sorted order the first and the last have in common what all have.
  Branch branch(size_t begin, size_t end, int64_t read, std::shared_ptr<infer::Session> trunk) const {
    const auto a = fed(order_[begin]), b = fed(order_[end - 1]);
    const auto until = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin();
    int64_t first_row = INT64_MAX;
    for (size_t i = begin; i < end; ++i)
      first_row = std::min(first_row, static_cast<int64_t>(all_[order_[i]].first) - 1);
    return {begin, end, read, until, first_row, std::move(trunk), std::nullopt};
  }

  // Branches from the top of the stack, until a pass is full or caches are. The first is read in any case; others only
  // where they leave it room to be read to its end.
  std::vector<Reading> choose() {
    const int64_t to_end = bytes_for(stack_.back(), longest(stack_.back()) - stack_.back().read);
    std::vector<Reading> readings;
    int64_t left = infer::Engine::kPassTokens, room = free_bytes();
    for (size_t i = stack_.size(); i > 0 && left > 0; --i) {
      Branch& b = stack_[i - 1];
      const int64_t bytes = bytes_for(b, std::min(left, b.until - b.read));
      if (readings.empty())
        while (room < bytes && give_up_one()) room = free_bytes();
      else if (room - bytes < to_end)
        break;
      room -= bytes;
      open(b);
      const int64_t tokens = std::min(left, b.until - b.read);
      readings.push_back({i - 1, tokens});
      left -= tokens;
    }
    return readings;
  }

  // The lowest branch of the stack that was begun, but not the first to be read, is begun again later. False: none.
  bool give_up_one() {
    for (size_t i = 0; i + 1 < stack_.size(); ++i) {
      Branch& b = stack_[i];
      if (!b.session) continue;
      b.first_row = std::max(b.first_row, b.read);
      b.read = 0;
      b.session.reset();
      return true;
    }
    return false;
  }

  int64_t free_bytes() const {
    const model::CachePool& pool = engine_.caches();
    const infer::PrefixCache* prefixes = engine_.prefixes();
    return pool.budget() - pool.used() + (prefixes ? prefixes->unused_bytes() : 0);
  }

  // Pages that it fills or copies, and the slot of a session that is to be opened.
  int64_t bytes_for(const Branch& b, int64_t tokens) const {
    const model::CachePool& pool = engine_.caches();
    const int64_t pages = (b.read + tokens + ops::kPageRows - 1) / ops::kPageRows - b.read / ops::kPageRows;
    return pages * pool.page_bytes() + (b.session ? 0 : pool.slot_bytes(capacity(b)));
  }
  int64_t capacity(const Branch& b) const { return b.trunk ? b.trunk->capacity() : longest(b); }
  int64_t longest(const Branch& b) const {
    int64_t most = 0;
    for (size_t i = b.begin; i < b.end; ++i) most = std::max(most, length(i));
    return most;
  }

  // The last of the branches goes on with the trunk itself.
  void open(Branch& b) {
    if (b.session) return;
    if (!b.trunk)
      begin(b);
    else if (b.trunk.use_count() == 1)
      b.session.emplace(std::move(*b.trunk));
    else
      b.session.emplace(b.trunk->fork());
    b.trunk.reset();
  }

  // With what is known of the prompt, up to the first position whose logits are asked for.
  void begin(Branch& b) {
    b.session.emplace(engine_, capacity(b));
    const auto ids = fed(order_[b.begin]);
    b.session->recall(ids.first(static_cast<size_t>(std::min(b.until, b.first_row + 1))));
    b.read = b.session->length();
  }

  infer::BatchPiece piece_of(const Reading& r) {
    Branch& b = stack_[r.branch];
    const auto ids = fed(order_[b.begin]).subspan(static_cast<size_t>(b.read), static_cast<size_t>(r.tokens));
    const int64_t rows = b.read + r.tokens - std::max(b.read, b.first_row);
    return {&*b.session, ids, infer::TokenRole::prompt, std::max<int64_t>(rows, 0)};
  }

  // Logits after the id at `position`, which those predict that follow it.
  void take_row(const Branch& b, int64_t position, std::span<const float> logits) {
    infer::require_finite(logits, position);
    const double norm = ops::log_sum_exp(logits);
    for (size_t i = b.begin; i < b.end; ++i) {
      const Continuation& c = all_[order_[i]];
      const auto next = static_cast<size_t>(position) + 1;
      if (next < c.first) continue;
      ContinuationScore& score = scores_[order_[i]];
      score.loglikelihood += static_cast<double>(logits[static_cast<size_t>(c.ids[next])]) - norm;
      score.greedy = score.greedy && is_greedy(logits, c.ids[next]);
    }
  }

  // The chosen branches are the top of the stack, of which what is read to its end makes room for its own branches.
  void advance(const std::vector<Reading>& readings) {
    std::vector<Branch> top(std::make_move_iterator(stack_.end() - static_cast<int64_t>(readings.size())),
                            std::make_move_iterator(stack_.end()));
    stack_.resize(stack_.size() - readings.size());
    for (size_t i = 0; i < top.size(); ++i) {
      Branch& b = top[i];
      const int64_t tokens = readings[top.size() - 1 - i].tokens;
      b.read += tokens;
      counts_.tokens += tokens;
      if (b.read < b.until) {
        stack_.push_back(std::move(b));
        continue;
      }
      for (; b.begin < b.end && length(b.begin) == b.until; ++b.begin) done_(order_[b.begin], scores_[order_[b.begin]]);
      if (b.begin < b.end)
        push_branches(b.begin, b.end, b.until, std::make_shared<infer::Session>(std::move(*b.session)));
    }
  }

  const infer::Engine& engine_;
  std::span<const Continuation> all_;
  const std::function<void(size_t, const ContinuationScore&)>& done_;
  std::vector<size_t> order_;  // of the ids that are read
  std::vector<ContinuationScore> scores_;
  std::vector<Branch> stack_;  // the last is read first
  ReadCounts counts_;
};

}  // namespace

ReadCounts score_continuations(const infer::Engine& engine, std::span<const Continuation> continuations,
                               const std::function<void(size_t, const ContinuationScore&)>& done,
                               const std::atomic<bool>& cancel) {
  if (continuations.empty()) return {};
  PrefixWalk walk(engine, continuations, done);
  while (!walk.done() && !cancel) walk.pass();
  return walk.counts();
}

}  // namespace birkhoff::eval
