// Pages of prompts that were read, kept for prompts that begin alike: a tree whose nodes are pages of
// ops::kPageRows tokens, the least recently used of which go when room is needed.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "model/cache_pool.h"

namespace birkhoff::infer {

class PrefixCache {
 public:
  // Keeps at most `budget` bytes of the pool's pages, and gives unused ones back when the pool runs short.
  PrefixCache(model::CachePool& pool, int64_t budget);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  // Pages of the longest known beginning of ids among prompts of the same scope; valid until the next call.
  std::vector<int32_t> find(uint64_t scope, std::span<const int32_t> ids);
  // ids, of whole pages, are in these. Where another text's page of the same ids is known the rest is not taken:
  // whoever has a page of the tree has all before it, so that pages nobody has are never held by others.
  void insert(uint64_t scope, std::span<const int32_t> ids, std::span<const int32_t> pages);
  void clear();
  int64_t unused_bytes() const;  // of pages that no text has
  int64_t budget() const { return budget_; }
  int64_t bytes() const { return static_cast<int64_t>(nodes_) * pool_.page_bytes(); }

 private:
  struct Node {
    Node* parent = nullptr;
    std::vector<int32_t> ids;  // of its page
    int32_t page = -1;
    uint64_t used = 0;  // when
    std::map<std::vector<int32_t>, std::unique_ptr<Node>> children;
  };
  void touch(Node& n);
  void drop(Node& leaf);
  bool drop_oldest(bool unused_alone);

  model::CachePool& pool_;
  int64_t budget_;
  uint64_t clock_ = 0;
  int64_t nodes_ = 0;
  std::map<uint64_t, Node> roots_;               // by scope
  std::set<std::pair<uint64_t, Node*>> by_use_;  // all nodes but roots
};

}  // namespace birkhoff::infer
