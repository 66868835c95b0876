#include "model/cache_pool.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace birkhoff::model {
namespace {

using ops::kPageRows;

// Of the first `layers` blocks.
template <class F>
void for_attention(const Model& m, size_t layers, F&& f) {
  for (size_t l = 0; l < layers; ++l) std::visit([&](const auto& spec) { f(l, spec); }, m.blocks[l].attn);
}
template <class Spec>
using CacheOf = typename LayerOf<Spec>::Cache;

int64_t pages_of(int64_t tokens) { return (tokens + kPageRows - 1) / kPageRows; }

}  // namespace

CachePool::CachePool(const Model& m, ops::CacheType type, bool predictors)
    : m_(m), memory_(std::make_unique<ops::PageMemory>()) {
  memory_->type = type;
  const auto add = [&](size_t, const auto& spec) {
    using Cache = CacheOf<std::decay_t<decltype(spec)>>;
    has_slots_ |= !std::is_same_v<typename Cache::Slot, layers::NoSlot>;
    layers_.emplace_back(Cache(*memory_, spec));
  };
  const size_t modules = m.weights.mtp.size(), layers = m.blocks.size() - modules;
  for_attention(m, layers, add);
  if (!predictors || has_slots_) return;  // a text that cannot go back drafts nothing
  for (size_t k = 0; k < modules; ++k) {
    std::visit([&](const auto& spec) { add(layers + k, spec); }, m.blocks[layers + k].attn);
    mtp_sources_.emplace_back(*memory_,
                              std::vector<int64_t>(static_cast<size_t>(m.residual.streams), m.config.hidden_size));
  }
}

CachePool::CachePool(const Model& m, ops::CacheType type, int64_t budget, bool predictors)
    : CachePool(m, type, predictors) {
  budget_ = budget;
  const int64_t pages = page_bytes() ? budget / page_bytes() : 0;
  try {
    pages_ = std::make_unique<Arena>(static_cast<size_t>(pages * page_bytes()));
  } catch (const Error&) {
    throw Error("cache", "the system has no room for caches of " + std::to_string(budget >> 20) + " MiB",
                "allow them less");
  }
  memory_->base = pages_->base();
}

CachePool CachePool::measuring(const Model& m, ops::CacheType type, bool predictors) {
  CachePool pool(m, type, predictors);
  pool.budget_ = INT64_MAX;
  return pool;
}

int64_t CachePool::slot_bytes(int64_t capacity) const {
  if (!has_slots_) return 0;
  Arena measuring = Arena::measuring();
  for_attention(m_, layers_.size(), [&](size_t, const auto& spec) {
    CacheOf<std::decay_t<decltype(spec)>>::Slot::take(measuring, spec, m_.compute, capacity);
  });
  return static_cast<int64_t>(measuring.peak());
}

int64_t CachePool::text_bytes(int64_t capacity) const {
  return pages_of(capacity) * page_bytes() + slot_bytes(capacity);
}

void CachePool::require(int64_t bytes) {
  while (bytes > budget_ - used_ && give_back_ && give_back_()) {
  }
  if (bytes <= budget_ - used_) return;
  const auto mib = [](int64_t n) { return std::to_string((n + (int64_t{1} << 20) - 1) >> 20) + " MiB"; };
  throw Error("cache",
              "texts have " + mib(used_) + " of the " + mib(budget_) + " that caches may take, and need " + mib(bytes) +
                  " more",
              "end a text, allow caches more memory, or choose a smaller type for them", ExitCode::failed);
}

int32_t CachePool::take_page() {
  require(page_bytes());
  used_ += page_bytes();
  int32_t page = static_cast<int32_t>(users_.size());
  if (free_.empty()) {
    users_.push_back(0);
  } else {
    page = free_.back();
    free_.pop_back();
  }
  users_[static_cast<size_t>(page)] = 1;
  const auto memory = this->page(page);  // nothing of another text is left, in files neither
  std::fill(memory.begin(), memory.end(), std::byte{0});
  return page;
}

void CachePool::release_page(int32_t page) {
  BK_CHECK_LT(0, users_[static_cast<size_t>(page)]);
  if (--users_[static_cast<size_t>(page)]) return;
  free_.push_back(page);
  used_ -= page_bytes();
}

std::span<std::byte> CachePool::page(int32_t page) const {
  if (!memory_->base) return {};  // of a dry run
  return {memory_->base + page * page_bytes(), static_cast<size_t>(page_bytes())};
}

int32_t CachePool::copy_page(int32_t from) {
  const int32_t to = take_page();
  std::copy_n(page(from).data(), page(from).size(), page(to).data());
  return to;
}

size_t CachePool::take_slot(int64_t capacity) {
  if (!has_slots_) return 0;
  const int64_t bytes = slot_bytes(capacity);
  require(bytes);
  auto memory = std::make_unique<Arena>(pages_ ? Arena(static_cast<size_t>(bytes)) : Arena::measuring());
  const auto unused = std::find_if(slots_.begin(), slots_.end(), [](const Slot& s) { return !s.memory; });
  const auto index = static_cast<size_t>(unused - slots_.begin());
  for_attention(m_, layers_.size(), [&](size_t l, const auto& spec) {
    auto& cache = std::get<CacheOf<std::decay_t<decltype(spec)>>>(layers_[l]);
    using LayerSlot = typename std::decay_t<decltype(cache)>::Slot;
    if (index == cache.slots.size()) cache.slots.emplace_back();
    cache.slots[index] = LayerSlot::take(*memory, spec, m_.compute, capacity);
  });
  if (index == slots_.size()) slots_.emplace_back();
  slots_[index] = {std::move(memory), bytes};
  used_ += bytes;
  return index;
}

void CachePool::release_slot(size_t slot) {
  if (!has_slots_) return;
  used_ -= slots_[slot].bytes;
  slots_[slot] = {};
}

std::span<std::byte> CachePool::slot(size_t slot) const {
  if (!has_slots_) return {};
  return {slots_[slot].memory->base(), slots_[slot].memory->used()};
}

KvCache::KvCache(CachePool& pool, int64_t capacity)
    : pool_(&pool), slot_(pool.take_slot(capacity)), capacity_(capacity) {}

KvCache::KvCache(const KvCache& other) : KvCache(*other.pool_, other.capacity_) {
  pages_ = other.pages_;
  length_ = other.length_;
  for (const int32_t page : pages_) pool_->share_page(page);
  std::copy_n(pool_->slot(other.slot_).data(), pool_->slot(slot_).size(), pool_->slot(slot_).data());
}

KvCache::KvCache(KvCache&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)),
      pages_(std::move(other.pages_)),
      slot_(other.slot_),
      length_(other.length_),
      capacity_(other.capacity_) {}

KvCache& KvCache::operator=(KvCache other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(pages_, other.pages_);
  std::swap(slot_, other.slot_);
  std::swap(length_, other.length_);
  std::swap(capacity_, other.capacity_);
  return *this;
}

KvCache::~KvCache() {
  if (!pool_) return;
  for (const int32_t page : pages_) pool_->release_page(page);
  pool_->release_slot(slot_);
}

void KvCache::make_room(int64_t tokens, int64_t from) {
  BK_CHECK_LE(length_ + tokens, capacity_);
  if (!pool_->page_bytes()) return;
  const size_t before = pages_.size();
  try {
    while (static_cast<int64_t>(pages_.size()) < pages_of(length_ + tokens)) pages_.push_back(pool_->take_page());
    for (auto i = static_cast<size_t>(std::min(from, length_) / kPageRows); i < before; ++i) {
      if (!pool_->shared(pages_[i])) continue;
      const int32_t own = pool_->copy_page(pages_[i]);
      pool_->release_page(std::exchange(pages_[i], own));
    }
  } catch (...) {
    for (; pages_.size() > before; pages_.pop_back()) pool_->release_page(pages_.back());
    throw;
  }
}

layers::CachedPart KvCache::part(int64_t first, int64_t tokens, int64_t past, layers::MlaForm form) const {
  return {first, tokens, past, form, pages_, slot_};
}

bool KvCache::truncate(int64_t tokens) {
  BK_CHECK(tokens >= 0 && tokens <= length_);
  // Windows and unfinished entries were overwritten; a text from its beginning reads nothing of them.
  if (pool_->has_slots() && tokens != length_ && tokens != 0) return false;
  length_ = tokens;
  for (; static_cast<int64_t>(pages_.size()) > pages_of(tokens); pages_.pop_back()) pool_->release_page(pages_.back());
  return true;
}

void KvCache::borrow(std::span<const int32_t> pages) {
  BK_CHECK(length_ == 0 && pages_.empty() && !pool_->has_slots());
  BK_CHECK_LE(static_cast<int64_t>(pages.size()) * kPageRows, capacity_);
  pages_.assign(pages.begin(), pages.end());
  for (const int32_t page : pages_) pool_->share_page(page);
  length_ = static_cast<int64_t>(pages_.size()) * kPageRows;
}

std::string KvCache::bytes() const {
  std::string out;
  const auto append = [&](std::span<const std::byte> part) {
    out.append(reinterpret_cast<const char*>(part.data()), part.size());
  };
  for (int64_t i = 0; i < std::min(pages_of(length_), static_cast<int64_t>(pages_.size())); ++i)  // a draft has more
    append(pool_->page(pages_[static_cast<size_t>(i)]));
  append(pool_->slot(slot_));
  return out;
}

void KvCache::restore(std::string_view bytes, int64_t length) {
  BK_CHECK(length_ == 0 && pages_.empty());
  make_room(length);
  const size_t need = pages_.size() * static_cast<size_t>(pool_->page_bytes()) + pool_->slot(slot_).size();
  if (need != bytes.size()) {
    truncate(0);
    throw Error("session",
                "caches of " + std::to_string(bytes.size()) + " bytes, this model keeps " + std::to_string(need) +
                    " of " + std::to_string(length) + " tokens",
                "go on with the model, the type of cache and the capacity that they were saved with");
  }
  const auto take = [&](std::span<std::byte> part) {
    if (part.empty()) return;  // no slot
    std::memcpy(part.data(), bytes.data(), part.size());
    bytes.remove_prefix(part.size());
  };
  for (const int32_t page : pages_) take(pool_->page(page));
  take(pool_->slot(slot_));
  length_ = length;
}

}  // namespace birkhoff::model
