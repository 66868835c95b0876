// Bump allocator over one block of memory sized before the first step. A measuring arena hands out addresses that
// nobody may touch and only counts: running a step dry over it is how the memory plan is made, so plan and run cannot
// disagree. Not thread-safe: arenas belong to the thread that composes ops, never to workers.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "core/view.h"

namespace birkhoff {

class Arena {
 public:
  static constexpr size_t kAlign = 64;

  explicit Arena(size_t capacity);  // zero-filled on first touch; throws Error when the system has no room
  static Arena measuring();
  // Over memory that belongs to somebody else and outlives it, 64-byte aligned.
  static Arena over(std::byte* base, size_t bytes) { return Arena(base, bytes, Kind::lent); }
  ~Arena();
  Arena(Arena&&) noexcept;
  Arena& operator=(Arena&&) = delete;

  // Uninitialised storage, 64-byte aligned; asking for more than the capacity is a broken contract.
  void* take_bytes(size_t bytes);
  template <class T>
  T* take(int64_t count) {
    return static_cast<T*>(take_bytes(static_cast<size_t>(count) * sizeof(T)));
  }
  Mat mat(DType dtype, int64_t rows, int64_t cols) {
    return {take_bytes(static_cast<size_t>(rows * cols * dtype_bytes(dtype))), dtype, rows, cols};
  }
  IndexMat index_mat(int64_t rows, int64_t cols) { return {take<int32_t>(rows * cols), rows, cols}; }

  std::byte* base() const { return base_; }
  size_t used() const { return used_; }
  size_t peak() const { return peak_; }
  size_t capacity() const { return capacity_; }
  bool is_measuring() const { return kind_ == Kind::measuring; }
  std::span<const std::byte> taken() const { return {base_, used_}; }  // not of a measuring arena
  void reset() { used_ = 0; }

  // Releases on destruction everything taken since construction.
  class Scope {
   public:
    explicit Scope(Arena& a) : arena_(a), mark_(a.used_) {}
    ~Scope() { arena_.used_ = mark_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    size_t mark_;
  };

 private:
  enum class Kind : uint8_t { own, measuring, lent };
  Arena(std::byte* base, size_t capacity, Kind kind) : base_(base), capacity_(capacity), kind_(kind) {}
  std::byte* base_ = nullptr;
  size_t capacity_ = 0, used_ = 0, peak_ = 0;
  Kind kind_ = Kind::own;
};

}  // namespace birkhoff
