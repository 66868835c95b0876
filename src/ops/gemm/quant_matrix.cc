#include "ops/gemm/quant_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "core/error.h"
#include "kernels/gemm/gemm.h"
#include "ops/gemm/quantise.h"
#include "ops/tasks.h"

namespace birkhoff::ops {
namespace {

using kernels::kPanel;
using kernels::kQuantBlock;

constexpr StoredType block_type(QuantType t) { return t == QuantType::q4 ? StoredType::q4_0 : StoredType::q8_0; }

// The codes [cols] and half scales [cols / 32] of a row of q4_0 or q8_0 blocks.
void read_blocks(StoredType type, const uint8_t* row, int64_t cols, int8_t* codes, uint16_t* scales) {
  for (int64_t b = 0; b < cols / kQuantBlock; ++b, codes += kQuantBlock) {
    std::memcpy(scales + b, row, 2);
    row += 2;
    if (type == StoredType::q8_0) {
      std::memcpy(codes, row, kQuantBlock);
      row += kQuantBlock;
      continue;
    }
    for (int64_t i = 0; i < kQuantBlock / 2; ++i) {
      codes[i] = static_cast<int8_t>((row[i] & 15) - 8);
      codes[i + kQuantBlock / 2] = static_cast<int8_t>((row[i] >> 4) - 8);
    }
    row += kQuantBlock / 2;
  }
}

// 16 rows of codes [16, k] and scales [16, k / 32] -> a panel.
void write_panel(QuantType type, int64_t k, const int8_t* codes, const uint16_t* scales, uint8_t* out) {
  const int64_t blocks = k / kQuantBlock;
  for (int64_t b = 0; b < blocks; ++b, out += kernels::quant_code_bytes(type)) {
    for (int64_t j = 0; j < kPanel; ++j) {
      const int8_t* from = codes + j * k + b * kQuantBlock;
      for (int64_t group = 0; group < 8; ++group, from += 4) {
        if (type == QuantType::q8) {
          std::memcpy(out + group * 64 + j * 4, from, 4);
          continue;
        }
        uint8_t* to = out + group / 2 * 64 + j * 4;
        for (int q = 0; q < 4; ++q) {
          const auto code = static_cast<uint8_t>(from[q] + 8);
          to[q] = group % 2 ? static_cast<uint8_t>(to[q] | code << 4) : code;
        }
      }
    }
  }
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t j = 0; j < kPanel; ++j, out += 2) std::memcpy(out, scales + j * blocks + b, 2);
}

// The part that row `row` of w lies in, and its row there; null where w is empty.
const StoredTensor* part_of(const StoredMatrix& w, int64_t& row) {
  for (const StoredTensor& part : w.parts) {
    if (row < part.rows) return &part;
    row -= part.rows;
  }
  return nullptr;
}

// Codes of 4 bits are codes of 8 bits too.
bool holds_blocks(const StoredTensor& part, QuantType type) {
  return part.type == block_type(type) || (type == QuantType::q8 && part.type == StoredType::q4_0);
}

void require_finite(const float* x, int64_t count, int64_t row) {
  const float* bad = std::find_if(x, x + count, [](float v) { return !std::isfinite(v); });
  if (bad != x + count)
    throw Error("weights",
                "row " + std::to_string(row) + ", column " + std::to_string(bad - x) + " is " + std::to_string(*bad) +
                    ", which no block of codes can hold",
                "run the model with --weights stored");
}

// Rows [row, row + count) of the matrix that `out` will hold, in fp32, [count, out.cols].
void read_rows(const StoredMatrix& w, int64_t first_row, bool transposed, int64_t row, int64_t count, Mat to) {
  if (!transposed) return expand_rows(w, first_row + row, count, to);
  WorkerScratch scratch;
  const Mat columns(scratch.take<float>(to.cols * count), f32_t, to.cols, count);
  expand_block(w, first_row, row, columns);
  for (int64_t i = 0; i < count; ++i)
    for (int64_t c = 0; c < to.cols; ++c) to.f32(i)[c] = columns.f32(c)[i];
}

// The codes and scales of one row, which w may hold as they are.
void quantise_row(const StoredMatrix& w, int64_t row, const Mat& fp32, QuantType type, int8_t* codes,
                  uint16_t* scales) {
  const int64_t k = fp32.cols;
  if (const StoredTensor* part = part_of(w, row); part && holds_blocks(*part, type))
    return read_blocks(part->type, part->row(row), k, codes, scales);
  WorkerScratch scratch;
  auto* blocks = scratch.take<uint8_t>(k / kQuantBlock * 34);
  quantise_rows(block_type(type), fp32.f32(), 1, k, k, blocks);
  read_blocks(block_type(type), blocks, k, codes, scales);
}

void quantise_panel(const StoredMatrix& w, int64_t first_row, bool transposed, const QuantMatrix& out, int64_t panel) {
  WorkerScratch scratch;
  const int64_t k = out.cols, blocks = k / kQuantBlock, row = panel * kPanel, count = std::min(kPanel, out.rows - row);
  const Mat rows(scratch.take<float>(count * k), f32_t, count, k);
  auto* codes = scratch.take<int8_t>(kPanel * k);
  auto* scales = scratch.take<uint16_t>(kPanel * blocks);
  read_rows(w, first_row, transposed, row, count, rows);
  const StoredMatrix none;
  for (int64_t j = 0; j < kPanel; ++j) {
    if (j >= count) {
      std::memset(codes + j * k, 0, static_cast<size_t>(k));
      std::memset(scales + j * blocks, 0, static_cast<size_t>(blocks) * 2);
      continue;
    }
    require_finite(rows.f32(j), k, row + j);
    quantise_row(transposed ? none : w, first_row + row + j, rows.row_block(j, 1), out.type, codes + j * k,
                 scales + j * blocks);
  }
  write_panel(out.type, k, codes, scales, out.data + panel * kernels::quant_panel_bytes(out.type, k));
}

}  // namespace

int64_t QuantMatrix::bytes(QuantType type, int64_t rows, int64_t cols) {
  BK_CHECK_EQ(cols % kQuantBlock, 0);
  return round_up(div_up(rows, kPanel) * kernels::quant_panel_bytes(type, cols), 64);
}

void quantise(const Exec& exec, const StoredMatrix& w, int64_t first_row, bool transposed, const QuantMatrix& out) {
  BK_CHECK(out.data && out.cols % kQuantBlock == 0);
  BK_CHECK(transposed ? out.rows == w.cols && first_row + out.cols <= w.rows
                      : out.cols == w.cols && first_row + out.rows <= w.rows);
  if (exec.dry()) return;
  exec.parallel_for(div_up(out.rows, kPanel),
                    [&](int64_t panel) { quantise_panel(w, first_row, transposed, out, panel); });
}

WeightFormat lossless_format(const StoredMatrix& w) {
  WeightFormat format = WeightFormat::q4;
  for (const StoredTensor& part : w.parts) {
    if (!holds_blocks(part, QuantType::q8)) return WeightFormat::stored;
    if (part.type == StoredType::q8_0) format = WeightFormat::q8;
  }
  return format;
}

}  // namespace birkhoff::ops
