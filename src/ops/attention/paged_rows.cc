#include "ops/attention/paged_rows.h"

#include <algorithm>
#include <iterator>
#include <numeric>

#include "kernels/rows/elementwise.h"
#include "ops/tasks.h"

namespace birkhoff::ops {
namespace {

constexpr int64_t kPagedTaskElements = 1 << 15;
constexpr int64_t kRowsAlign = 64;
constexpr const char* kCacheTypeNames[] = {"fp32", "bf16", "int8"};

int64_t element_bytes(CacheType t) { return t == CacheType::f32 ? 4 : t == CacheType::bf16 ? 2 : 1; }
DType number_type(CacheType t) { return t == CacheType::f32 ? f32_t : bf16_t; }

// Calls f(page, row of the page, row) for rows [0, n) of a text from its row `first` on.
template <class F>
void for_paged_rows(const Exec& exec, std::span<const int32_t> pages, int64_t first, CMat rows, F&& f) {
  BK_CHECK_LE(first + rows.rows, static_cast<int64_t>(pages.size()) * kPageRows);
  if (exec.dry()) return;
  for_rows(exec, rows.rows, rows.cols, kPagedTaskElements,
           [&](int64_t r) { f(pages[static_cast<size_t>((first + r) / kPageRows)], (first + r) % kPageRows, r); });
}

void encode_groups(const std::vector<int64_t>& groups, CMat row, int8_t* codes, float* scale) {
  const auto& k = kernels::elementwise_kernels();
  int64_t at = 0;
  for (const int64_t n : groups) {
    if (row.dtype == f32_t)
      k.encode_f(row.f32() + at, n, codes + at, scale++);
    else
      k.encode_b(row.b16() + at, n, codes + at, scale++);
    at += n;
  }
}

void decode_groups(const std::vector<int64_t>& groups, const int8_t* codes, const float* scale, Mat row) {
  const auto& k = kernels::elementwise_kernels();
  int64_t at = 0;
  for (const int64_t n : groups) {
    if (row.dtype == f32_t)
      k.decode_f(codes + at, *scale++, row.f32() + at, n);
    else
      k.decode_b(codes + at, *scale++, row.b16() + at, n);
    at += n;
  }
}

void copy_row(CMat from, Mat to) {
  const auto& k = kernels::elementwise_kernels();
  const bool wide = to.dtype == f32_t;
  if (from.dtype == f32_t)
    wide ? k.copy_ff(from.f32(), to.f32(), to.cols) : k.copy_fb(from.f32(), to.b16(), to.cols);
  else
    wide ? k.copy_bf(from.b16(), to.f32(), to.cols) : k.copy_bb(from.b16(), to.b16(), to.cols);
}

}  // namespace

const char* cache_type_name(CacheType t) { return kCacheTypeNames[static_cast<size_t>(t)]; }
std::optional<CacheType> find_cache_type(std::string_view name) {
  for (size_t i = 0; i < std::size(kCacheTypeNames); ++i)
    if (name == kCacheTypeNames[i]) return static_cast<CacheType>(i);
  return std::nullopt;
}

int64_t PagedRows::row_bytes(CacheType type, const std::vector<int64_t>& groups) {
  const int64_t cols = std::accumulate(groups.begin(), groups.end(), int64_t{0});
  return cols * element_bytes(type) + (type == CacheType::int8 ? static_cast<int64_t>(groups.size()) * 4 : 0);
}

PagedRows::PagedRows(PageMemory& memory, std::vector<int64_t> groups)
    : memory_(&memory),
      groups_(std::move(groups)),
      cols_(std::accumulate(groups_.begin(), groups_.end(), int64_t{0})),
      offset_(memory.page_bytes) {
  scales_offset_ = offset_ + kPageRows * cols_ * element_bytes(memory.type);
  memory.page_bytes = round_up(offset_ + kPageRows * row_bytes(memory.type, groups_), kRowsAlign);
}

KeyRows PagedRows::view(std::span<const int32_t> pages, int64_t rows) const {
  BK_CHECK(memory_->type != CacheType::int8);
  BK_CHECK_LE(rows, static_cast<int64_t>(pages.size()) * kPageRows);
  const std::byte* first = memory_->base ? memory_->base + offset_ : nullptr;
  return {CMat(first, number_type(memory_->type), kPageRows, cols_), pages.data(), memory_->page_bytes, rows};
}

Mat PagedRows::row_at(int32_t page, int64_t row) const {
  const int64_t bytes = cols_ * element_bytes(memory_->type);
  return {memory_->base + page * memory_->page_bytes + offset_ + row * bytes, number_type(memory_->type), 1, cols_};
}
int8_t* PagedRows::codes_at(int32_t page, int64_t row) const {
  return reinterpret_cast<int8_t*>(memory_->base + page * memory_->page_bytes + offset_) + row * cols_;
}
float* PagedRows::scales_at(int32_t page, int64_t row) const {
  return reinterpret_cast<float*>(memory_->base + page * memory_->page_bytes + scales_offset_) +
         row * static_cast<int64_t>(groups_.size());
}

void PagedRows::write(const Exec& exec, CMat rows, std::span<const int32_t> pages, int64_t first) const {
  BK_CHECK_EQ(rows.cols, cols_);
  for_paged_rows(exec, pages, first, rows, [&](int32_t page, int64_t row, int64_t r) {
    if (memory_->type == CacheType::int8)
      encode_groups(groups_, rows.row_block(r, 1), codes_at(page, row), scales_at(page, row));
    else
      copy_row(rows.row_block(r, 1), row_at(page, row));
  });
}

void PagedRows::read(const Exec& exec, std::span<const int32_t> pages, Mat out, int64_t first) const {
  BK_CHECK_EQ(out.cols, cols_);
  for_paged_rows(exec, pages, first, out, [&](int32_t page, int64_t row, int64_t r) {
    if (memory_->type == CacheType::int8)
      decode_groups(groups_, codes_at(page, row), scales_at(page, row), out.row_block(r, 1));
    else
      copy_row(row_at(page, row), out.row_block(r, 1));
  });
}

}  // namespace birkhoff::ops
