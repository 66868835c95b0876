// What texts leave behind in the layers of a model while they are read and written: pages of rows that texts share, and
// a slot each for what is no row (V4's windows).
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/arena.h"
#include "model/model.h"

namespace birkhoff::model {

class CachePool {
 public:
  // At most `budget` bytes of pages and slots, which come into use as texts grow. predictors: pages have rows of the
  // model's prediction modules too, if it has any. The model outlives the pool.
  CachePool(const Model& m, ops::CacheType type, int64_t budget, bool predictors = false);
  // For dry runs: the shapes alone.
  static CachePool measuring(const Model& m, ops::CacheType type, bool predictors = false);

  const AttentionCache& layer(int64_t block) const { return layers_[static_cast<size_t>(block)]; }
  // What module k (from 0) reads of the token before: rows of the model or of module k - 1 (mtp.h).
  const ops::PagedRows& mtp_source(size_t k) const { return mtp_sources_[k]; }
  size_t predictors() const { return mtp_sources_.size(); }  // modules that have rows here
  ops::CacheType type() const { return memory_->type; }
  // Of a page of ops::kPageRows tokens in all layers; 0 where no layer keeps rows.
  int64_t page_bytes() const { return memory_->page_bytes; }
  // Of the slot of a text of up to `capacity` tokens; 0 where no layer has one.
  int64_t slot_bytes(int64_t capacity) const;
  // Of everything that a text of `capacity` tokens may come to have.
  int64_t text_bytes(int64_t capacity) const;
  int64_t budget() const { return budget_; }
  int64_t used() const { return used_; }  // bytes of pages and slots that texts have
  bool has_slots() const { return has_slots_; }
  // Called when the budget is used up: gives something back, or returns false.
  void on_shortage(std::function<bool()> give_back) { give_back_ = std::move(give_back); }

  // A page with one user; copy_page: with the rows of another. Throw Error when the budget is used up.
  int32_t take_page();
  int32_t copy_page(int32_t page);
  void share_page(int32_t page) { ++users_[static_cast<size_t>(page)]; }
  void release_page(int32_t page);
  bool shared(int32_t page) const { return users_[static_cast<size_t>(page)] > 1; }
  std::span<std::byte> page(int32_t page) const;

  size_t take_slot(int64_t capacity);
  void release_slot(size_t slot);
  std::span<std::byte> slot(size_t slot) const;

 private:
  CachePool(const Model& m, ops::CacheType type, bool predictors);
  void require(int64_t bytes);
  const Model& m_;
  std::unique_ptr<ops::PageMemory> memory_;
  std::unique_ptr<Arena> pages_;
  std::vector<AttentionCache> layers_;  // of the model's blocks, then of the modules'
  std::vector<ops::PagedRows> mtp_sources_;
  int64_t budget_ = 0, used_ = 0;
  std::vector<int32_t> users_;  // of every page that was ever taken
  std::vector<int32_t> free_;
  std::function<bool()> give_back_;
  struct Slot {
    std::unique_ptr<Arena> memory;  // null: unused
    int64_t bytes = 0;
  };
  std::vector<Slot> slots_;
  bool has_slots_ = false;
};

// One text's caches: `length` tokens of at most `capacity` are there. Copies share its pages; what is written later
// into a page that others use goes to a page of its own.
class KvCache {
 public:
  KvCache(CachePool& pool, int64_t capacity);
  KvCache(const KvCache& other);
  KvCache(KvCache&& other) noexcept;
  KvCache& operator=(KvCache other) noexcept;
  ~KvCache();

  int64_t length() const { return length_; }
  int64_t capacity() const { return capacity_; }
  CachePool& pool() const { return *pool_; }
  // Takes the pages that the next `tokens` need. Throws Error, and the text is what it was, when there are none.
  void make_room(int64_t tokens) { make_room(tokens, length_); }
  // The same; and pages from row `from` on, whose rows prediction modules write again, become its own.
  void make_room(int64_t tokens, int64_t from);
  // Its tokens past .. as rows first .. of a pass; room for them was made.
  layers::CachedPart part(int64_t first, int64_t tokens, int64_t past, layers::MlaForm form) const;
  void advance(int64_t tokens) { length_ += tokens; }  // they were run
  // Forgets all but the first `tokens`. False, and nothing happens, where a layer cannot go back to there.
  bool truncate(int64_t tokens);

  std::span<const int32_t> pages() const { return pages_; }
  // Begins with whole pages of a text whose tokens are the same. Of an empty text without a slot.
  void borrow(std::span<const int32_t> pages);

  // All of it as bytes, and back into an empty text of the same model, type and, with slots, capacity. Throws Error
  // when their number is another.
  std::string bytes() const;
  void restore(std::string_view bytes, int64_t length);

 private:
  CachePool* pool_;
  std::vector<int32_t> pages_;
  size_t slot_ = 0;
  int64_t length_ = 0, capacity_;
};

}  // namespace birkhoff::model
