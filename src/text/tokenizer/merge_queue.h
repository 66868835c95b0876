// Places waiting to be merged, lowest rank first, leftmost among equals: one list of places per rank and a heap of the
// ranks that wait. A list is swept from left to right, so a piece of millions of symbols is walked in order and a heap
// holds as many entries as there are ranks.
#pragma once
#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

namespace birkhoff::text {

class MergeQueue {
 public:
  struct Entry {
    uint32_t rank, place;
  };

  bool empty() const { return waiting_.empty(); }

  // Drops what waits: an error may have left something.
  void clear() {
    for (const uint32_t rank : waiting_) {
      if (list_of_[rank] >= 0) free_.push_back(list_of_[rank]);
      list_of_[rank] = -1;
    }
    waiting_.clear();
  }

  void push(uint32_t rank, uint32_t place) {
    if (rank >= list_of_.size()) list_of_.resize(rank + 1, -1);
    if (list_of_[rank] < 0) {
      waiting_.push_back(rank);
      list_of_[rank] = take_list();
      std::push_heap(waiting_.begin(), waiting_.end(), std::greater<uint32_t>());
    }
    List& list = lists_[static_cast<size_t>(list_of_[rank])];
    // A list that is being swept takes places at or left of the last one read, in front of the others.
    if (list.read > 0 && list.in_order && place <= list.places[list.read]) {
      list.places[--list.read] = place;
      return;
    }
    list.in_order = list.in_order && (list.places.empty() || list.places.back() <= place);
    list.places.push_back(place);
  }

  // Not when empty.
  Entry pop() {
    const uint32_t rank = waiting_.front();
    List& list = lists_[static_cast<size_t>(list_of_[rank])];
    if (!list.in_order) {
      std::sort(list.places.begin() + static_cast<std::ptrdiff_t>(list.read), list.places.end());
      list.in_order = true;
    }
    const Entry first{rank, list.places[list.read++]};
    if (list.read == list.places.size()) {
      free_.push_back(list_of_[rank]);
      list_of_[rank] = -1;
      std::pop_heap(waiting_.begin(), waiting_.end(), std::greater<uint32_t>());
      waiting_.pop_back();
    }
    return first;
  }

 private:
  struct List {
    std::vector<uint32_t> places;
    size_t read = 0;
    bool in_order = true;
  };

  int32_t take_list() {
    if (free_.empty()) {
      lists_.emplace_back();
      return static_cast<int32_t>(lists_.size() - 1);
    }
    const int32_t i = free_.back();
    free_.pop_back();
    List& list = lists_[static_cast<size_t>(i)];
    list.places.clear();
    list.read = 0;
    list.in_order = true;
    return i;
  }

  std::vector<int32_t> list_of_;  // by rank; -1: none waits
  std::vector<List> lists_;
  std::vector<int32_t> free_;
  std::vector<uint32_t> waiting_;  // a min-heap of ranks
};

}  // namespace birkhoff::text
