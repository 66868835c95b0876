#include "ops/gemm/operand_pages.h"

#include <algorithm>
#include <cstdint>

#include "ops/tasks.h"

namespace birkhoff::ops {
namespace {

ByteRange range_of(const uint8_t* begin, int64_t bytes) {
  return {reinterpret_cast<const std::byte*>(begin), static_cast<size_t>(bytes)};
}

// Rows of factors that rows [first, first + count) of t are multiplied by.
ByteRange scales_of(const StoredTensor& t, int64_t first, int64_t count) {
  const int64_t row = div_up(t.cols, t.block_cols) * (t.scale_type == ScaleType::f32 ? 4 : 1),
                begin = first / t.block_rows, end = div_up(first + count, t.block_rows);
  return range_of(t.scale + begin * row, (end - begin) * row);
}

}  // namespace

void add_memory(const StoredMatrix& w, int64_t first, int64_t count, std::vector<ByteRange>& to) {
  int64_t row = 0;
  for (const StoredMatrix::Part& part : w.parts) {
    int64_t begin = std::max(first, row) - row, end = std::min(first + count, row + part.rows()) - row;
    row += part.rows();
    if (begin >= end) continue;
    const StoredTensor& t = part.tensor;
    if (part.turned) begin = 0, end = t.rows;
    to.push_back(range_of(t.row(begin), (end - begin) * t.row_bytes()));
    if (t.scale_type != ScaleType::none) to.push_back(scales_of(t, begin, end - begin));
  }
}

void add_memory(const Packed& b, std::vector<ByteRange>& to) {
  if (b.quant)
    to.push_back(range_of(b.quant->data, QuantMatrix::bytes(b.quant->type, b.quant->rows, b.quant->cols)));
  else if (b.stored)
    add_memory(*b.stored, b.first_row, b.transposed ? b.n : b.k, to);
  else
    to.push_back(range_of(static_cast<const uint8_t*>(b.data), Packed::bytes(b.dtype, b.k, b.n)));
}

namespace {

void advise(const Exec& exec, std::span<const ByteRange> ranges, void (*what)(ByteRange)) {
  if (exec.dry()) return;
  constexpr size_t kPiece = size_t{1} << 20;
  std::vector<ByteRange> pieces;
  for (ByteRange range : ranges) {
    while (!range.empty()) {  // cut where pages end: one that lies in two pieces would be given back with neither
      const size_t past = reinterpret_cast<uintptr_t>(range.data()) % kPiece;
      pieces.push_back(range.first(std::min(kPiece - past, range.size())));
      range = range.subspan(pieces.back().size());
    }
  }
  exec.parallel_for(static_cast<int64_t>(pieces.size()), [&](int64_t i) { what(pieces[static_cast<size_t>(i)]); });
}

}  // namespace

void will_need(const Exec& exec, std::span<const ByteRange> ranges) { advise(exec, ranges, birkhoff::will_need); }
void give_back(const Exec& exec, std::span<const ByteRange> ranges) { advise(exec, ranges, birkhoff::give_back); }

}  // namespace birkhoff::ops
