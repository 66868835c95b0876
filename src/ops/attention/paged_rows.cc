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

void encode(CMat x, int8_t* codes, float* scale) {
  const auto& k = kernels::elementwise_kernels();
  if (x.dtype == f32_t)
    k.encode_f(x.f32(), x.cols, codes, scale);
  else
    k.encode_b(x.b16(), x.cols, codes, scale);
}

void decode(const kernels::CodedRows& from, Mat to) {
  const auto& k = kernels::elementwise_kernels();
  to.dtype == f32_t ? k.decode_f(from, to.f32(), to.stride) : k.decode_b(from, to.b16(), to.stride);
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

PagedRows::PagedRows(PageMemory& memory, std::vector<int64_t> groups, RowLayout layout)
    : memory_(&memory),
      groups_(std::move(groups)),
      layout_(layout),
      cols_(std::accumulate(groups_.begin(), groups_.end(), int64_t{0})),
      offset_(memory.page_bytes) {
  scales_offset_ = offset_ + kPageRows * cols_ * element_bytes(memory.type);
  memory.page_bytes = round_up(offset_ + kPageRows * row_bytes(memory.type, groups_), kRowsAlign);
}

KeyRows PagedRows::view(std::span<const int32_t> pages, int64_t rows) const {
  BK_CHECK(memory_->type != CacheType::int8);
  BK_CHECK_LE(rows, static_cast<int64_t>(pages.size()) * kPageRows);
  const std::byte* first = memory_->base ? memory_->base + offset_ : nullptr;
  KeyRows view(CMat(first, number_type(memory_->type), kPageRows, cols_), pages.data(), memory_->page_bytes, rows);
  view.by_head = layout_ == RowLayout::by_group;
  return view;
}

KeyRows PagedRows::encoded_view(std::span<const int32_t> pages, int64_t rows, DType t) const {
  BK_CHECK_LE(rows, static_cast<int64_t>(pages.size()) * kPageRows);
  KeyRows view(CMat(nullptr, t, kPageRows, cols_), pages.data(), memory_->page_bytes, rows);
  view.encoded = this;
  return view;
}

template <class F>
void PagedRows::for_parts(int32_t page, int64_t row, F&& f) const {
  std::byte* const base = memory_->base + page * memory_->page_bytes + offset_;
  int64_t col = 0;
  for (const int64_t n : groups_) {
    const int64_t at = layout_ == RowLayout::by_group ? kPageRows * col + row * n : row * cols_ + col;
    f(base + at * element_bytes(memory_->type), col, n);
    col += n;
  }
}
float* PagedRows::scales_at(int32_t page, int64_t row) const {
  return reinterpret_cast<float*>(memory_->base + page * memory_->page_bytes + scales_offset_) +
         row * static_cast<int64_t>(groups_.size());
}

void PagedRows::write(const Exec& exec, CMat rows, std::span<const int32_t> pages, int64_t first) const {
  BK_CHECK_EQ(rows.cols, cols_);
  for_paged_rows(exec, pages, first, rows, [&](int32_t page, int64_t row, int64_t r) {
    float* scale = memory_->type == CacheType::int8 ? scales_at(page, row) : nullptr;
    for_parts(page, row, [&](std::byte* part, int64_t col, int64_t n) {
      const CMat x = rows.row_block(r, 1).col_block(col, n);
      if (scale)
        encode(x, reinterpret_cast<int8_t*>(part), scale++);
      else
        copy_row(x, {part, number_type(memory_->type), 1, n});
    });
  });
}

void PagedRows::read_rows(int32_t page, int64_t row, Mat out) const {
  const auto groups = static_cast<int64_t>(groups_.size());
  const float* scale = memory_->type == CacheType::int8 ? scales_at(page, row) : nullptr;
  for_parts(page, row, [&](std::byte* part, int64_t col, int64_t n) {
    const Mat to = out.col_block(col, n);
    const int64_t step = layout_ == RowLayout::by_group ? n : cols_;
    if (scale)
      decode({reinterpret_cast<const int8_t*>(part), step, scale++, groups, out.rows, n}, to);
    else
      for (int64_t r = 0; r < out.rows; ++r)
        copy_row(CMat(part + r * step * element_bytes(memory_->type), number_type(memory_->type), 1, n),
                 to.row_block(r, 1));
  });
}

void PagedRows::read(const Exec& exec, std::span<const int32_t> pages, Mat out, int64_t first) const {
  BK_CHECK_EQ(out.cols, cols_);
  for_paged_rows(exec, pages, first, out,
                 [&](int32_t page, int64_t row, int64_t r) { read_rows(page, row, out.row_block(r, 1)); });
}

void PagedRows::read_piece(const int32_t* pages, int64_t first, Mat out) const {
  BK_CHECK_EQ(out.cols, cols_);
  for (int64_t r = 0, n = 0; r < out.rows; r += n) {
    const int64_t row = (first + r) % kPageRows;
    n = std::min(kPageRows - row, out.rows - r);
    read_rows(pages[(first + r) / kPageRows], row, out.row_block(r, n));
  }
}

}  // namespace birkhoff::ops
