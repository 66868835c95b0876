// Rows that texts leave behind, in pages which they may share: row r of a text stands in row r % kPageRows of page
// pages[r / kPageRows]. A page has the rows of every layer, one after another. Types:
//   fp32, bf16   the numbers
//   int8         codes with an fp32 scale for every group of columns: max |x| / 127, codes rounded to nearest even
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "core/exec.h"
#include "ops/attention/key_rows.h"

namespace birkhoff::ops {

using kernels::kPageRows;

enum class CacheType : uint8_t { f32, bf16, int8 };
const char* cache_type_name(CacheType t);  // "fp32", "bf16", "int8"
std::optional<CacheType> find_cache_type(std::string_view name);
inline CacheType cache_type_of(DType t) { return t == f32_t ? CacheType::f32 : CacheType::bf16; }

// All pages, of which layers lay out the first and memory is given afterwards; null for dry runs.
struct PageMemory {
  CacheType type = CacheType::bf16;
  std::byte* base = nullptr;
  int64_t page_bytes = 0;
};

// Where the numbers of a page lie: row after row, or group after group of columns, each row after row, so that the keys
// of a head follow each other and are read at the speed of memory.
enum class RowLayout : uint8_t { whole, by_group };

class PagedRows {
 public:
  PagedRows() = default;
  // Rows of groups of columns, behind what the page has already. `memory` outlives it.
  PagedRows(PageMemory& memory, std::vector<int64_t> groups, RowLayout layout = RowLayout::whole);
  static int64_t row_bytes(CacheType type, const std::vector<int64_t>& groups);

  int64_t cols() const { return cols_; }
  // Whether the rows can be read where they lie as numbers of type t.
  bool holds(DType t) const { return memory_->type == cache_type_of(t); }
  // The first `rows` rows of a text, of a type of numbers.
  KeyRows view(std::span<const int32_t> pages, int64_t rows) const;
  // The same of any type, for who reads them as numbers of type t a piece at a time (latent_attention.h).
  KeyRows encoded_view(std::span<const int32_t> pages, int64_t rows, DType t) const;
  // rows [n, cols] become rows first .. first + n - 1 of the text.
  void write(const Exec& exec, CMat rows, std::span<const int32_t> pages, int64_t first) const;
  // The text's rows first .. first + n - 1 -> out [n, cols], assigned.
  void read(const Exec& exec, std::span<const int32_t> pages, Mat out, int64_t first = 0) const;
  // The same within a task.
  void read_piece(const int32_t* pages, int64_t first, Mat out) const;

 private:
  // Rows [row, row + out.rows) of a page.
  void read_rows(int32_t page, int64_t row, Mat out) const;
  // Calls f(first element in memory, first column, columns) for what lies side by side of a row.
  template <class F>
  void for_parts(int32_t page, int64_t row, F&& f) const;
  float* scales_at(int32_t page, int64_t row) const;

  const PageMemory* memory_ = nullptr;
  std::vector<int64_t> groups_;
  RowLayout layout_ = RowLayout::whole;
  int64_t cols_ = 0;
  int64_t offset_ = 0, scales_offset_ = 0;  // in a page
};

}  // namespace birkhoff::ops
