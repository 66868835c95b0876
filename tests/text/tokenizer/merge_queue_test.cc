// The order of places that wait to be merged, against a heap of (rank, place).
#include "text/tokenizer/merge_queue.h"

#include <gtest/gtest.h>

#include <queue>
#include <random>
#include <utility>

namespace birkhoff::text {
namespace {

using Pair = std::pair<uint32_t, uint32_t>;
using Heap = std::priority_queue<Pair, std::vector<Pair>, std::greater<>>;

void expect_same_top(MergeQueue& queue, Heap& heap) {
  ASSERT_FALSE(queue.empty());
  const auto [rank, place] = queue.pop();
  ASSERT_EQ(Pair(rank, place), heap.top());
  heap.pop();
}

// Whatever is pushed while a list is read: lower and higher ranks, the same rank left and right of the last place, a
// place twice.
TEST(MergeQueue, LowestRankFirstThenLeftmost) {
  std::mt19937 random(5);
  for (const uint32_t ranks : {1u, 2u, 7u, 300u}) {
    MergeQueue queue;
    Heap heap;
    for (int round = 0; round < 3000; ++round) {
      const bool push = heap.empty() || random() % 9 < 4 + (round < 1500 ? 1 : 0);
      if (push) {
        const Pair p(random() % ranks, random() % 500);
        queue.push(p.first, p.second);
        heap.push(p);
      } else {
        ASSERT_NO_FATAL_FAILURE(expect_same_top(queue, heap)) << ranks << " ranks, round " << round;
      }
    }
    while (!heap.empty()) ASSERT_NO_FATAL_FAILURE(expect_same_top(queue, heap));
    EXPECT_TRUE(queue.empty());
  }
}

TEST(MergeQueue, ClearedItIsAsNew) {
  MergeQueue queue;
  for (uint32_t i = 0; i < 40; ++i) queue.push(i % 3, 40 - i);
  queue.pop();
  queue.clear();
  EXPECT_TRUE(queue.empty());
  Heap heap;
  for (uint32_t i = 0; i < 40; ++i) {
    queue.push(i % 5, i * 7 % 11);
    heap.emplace(i % 5, i * 7 % 11);
  }
  while (!heap.empty()) ASSERT_NO_FATAL_FAILURE(expect_same_top(queue, heap));
  EXPECT_TRUE(queue.empty());
}

}  // namespace
}  // namespace birkhoff::text
