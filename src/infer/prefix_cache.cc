#include "infer/prefix_cache.h"

#include <algorithm>

namespace birkhoff::infer {
namespace {
std::vector<int32_t> page_ids(std::span<const int32_t> ids, size_t page) {
  const auto rows = static_cast<size_t>(ops::kPageRows);
  const auto part = ids.subspan(page * rows, rows);
  return {part.begin(), part.end()};
}
}  // namespace

PrefixCache::PrefixCache(model::CachePool& pool, int64_t budget) : pool_(pool), budget_(budget) {
  pool_.on_shortage([this] { return drop_oldest(true); });
}

PrefixCache::~PrefixCache() {
  pool_.on_shortage(nullptr);
  clear();
}

void PrefixCache::clear() {
  while (drop_oldest(false)) {
  }
}

void PrefixCache::touch(Node& n) {
  by_use_.erase({n.used, &n});
  n.used = ++clock_;
  by_use_.insert({n.used, &n});
}

void PrefixCache::drop(Node& leaf) {
  by_use_.erase({leaf.used, &leaf});
  pool_.release_page(leaf.page);
  --nodes_;
  const std::vector<int32_t> ids = std::move(leaf.ids);
  leaf.parent->children.erase(ids);
}

// A leaf goes, so that what is left are beginnings still; a page that a session uses would give nothing back.
bool PrefixCache::drop_oldest(bool unused_alone) {
  for (const auto& [used, node] : by_use_) {
    if (!node->children.empty() || (unused_alone && pool_.shared(node->page))) continue;
    drop(*node);
    return true;
  }
  return false;
}

int64_t PrefixCache::unused_bytes() const {
  const auto unused = std::count_if(by_use_.begin(), by_use_.end(),
                                    [&](const auto& entry) { return !pool_.shared(entry.second->page); });
  return static_cast<int64_t>(unused) * pool_.page_bytes();
}

std::vector<int32_t> PrefixCache::find(uint64_t scope, std::span<const int32_t> ids) {
  std::vector<int32_t> pages;
  const auto root = roots_.find(scope);
  if (root == roots_.end()) return pages;
  Node* at = &root->second;
  for (size_t i = 0; (i + 1) * static_cast<size_t>(ops::kPageRows) <= ids.size(); ++i) {
    const auto next = at->children.find(page_ids(ids, i));
    if (next == at->children.end()) break;
    at = next->second.get();
    touch(*at);
    pages.push_back(at->page);
  }
  return pages;
}

void PrefixCache::insert(uint64_t scope, std::span<const int32_t> ids, std::span<const int32_t> pages) {
  Node* at = &roots_[scope];
  for (size_t i = 0; i < pages.size(); ++i) {
    std::unique_ptr<Node>& next = at->children[page_ids(ids, i)];
    if (!next) {
      next = std::make_unique<Node>();
      next->parent = at;
      next->ids = page_ids(ids, i);
      next->page = pages[i];
      pool_.share_page(pages[i]);
      ++nodes_;
    }
    if (next->page != pages[i]) break;
    at = next.get();
    touch(*at);
  }
  while (bytes() > budget_ && drop_oldest(false)) {
  }
}

}  // namespace birkhoff::infer
