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

std::optional<QuantType> quant_type(StoredType t) {
  if (t == StoredType::q4_0) return QuantType::q4;
  if (t == StoredType::q8_0) return QuantType::q8;
  return std::nullopt;
}
// Codes of 4 bits are codes of 8 bits too.
bool holds_blocks(StoredType from, QuantType type) {
  return quant_type(from) == type || (type == QuantType::q8 && from == StoredType::q4_0);
}

// Calls f for the parts of the file that a source is made of.
template <class F>
void for_parts_of(const QuantSource& s, F&& f) {
  int64_t row = 0;
  for (const StoredMatrix::Part& part : s.from->parts) {
    if (row < s.first + s.count && row + part.rows() > s.first) f(part);
    row += part.rows();
  }
}

// Blocks of a file that are row `row` of the source, if `type` holds them; null where they lie across or are others.
const uint8_t* blocks_of_row(const QuantSource& s, int64_t row, QuantType type, StoredType& from) {
  int64_t first = s.transposed ? s.first : s.first + row;
  const StoredMatrix::Part* part = s.from->part_of(first, s.transposed ? s.count : 1);
  if (!part || part->turned != s.transposed || !holds_blocks(part->tensor.type, type)) return nullptr;
  from = part->tensor.type;
  if (!s.transposed) return part->tensor.row(first);
  return first % kQuantBlock ? nullptr : part->tensor.row(row) + first / kQuantBlock * stored_format(from).block_bytes;
}

void require_finite(const float* x, int64_t count, int64_t row) {
  const float* bad = std::find_if(x, x + count, [](float v) { return !std::isfinite(v); });
  if (bad != x + count)
    throw Error("weights",
                "row " + std::to_string(row) + ", column " + std::to_string(bad - x) + " is " + std::to_string(*bad) +
                    ", which no block of codes can hold",
                "run the model with --weights stored");
}

// Rows [row, row + to.rows) of the source in fp32, all of them finite.
void read_rows(const QuantSource& s, int64_t row, Mat to) {
  if (s.transposed) {
    WorkerScratch scratch;
    const Mat columns(scratch.take<float>(to.cols * to.rows), f32_t, to.cols, to.rows);
    expand_block(*s.from, s.first, row, columns);
    for (int64_t i = 0; i < to.rows; ++i)
      for (int64_t c = 0; c < to.cols; ++c) to.f32(i)[c] = columns.f32(c)[i];
  } else {
    expand_rows(*s.from, s.first + row, to.rows, to);
  }
  for (int64_t i = 0; i < to.rows; ++i) require_finite(to.f32(i), to.cols, row + i);
}

bool all_finite(const uint16_t* halves, int64_t count) {
  return std::all_of(halves, halves + count, [](uint16_t h) { return (h & 0x7c00) != 0x7c00; });
}

void quantise_panel(const QuantSource& s, const QuantMatrix& out, int64_t panel) {
  WorkerScratch scratch;
  const int64_t k = out.cols, blocks = k / kQuantBlock, row = panel * kPanel, count = std::min(kPanel, out.rows - row);
  auto* codes = scratch.take<int8_t>(kPanel * k);
  auto* scales = scratch.take<uint16_t>(kPanel * blocks);
  std::memset(codes + count * k, 0, static_cast<size_t>((kPanel - count) * k));
  std::memset(scales + count * blocks, 0, static_cast<size_t>((kPanel - count) * blocks) * 2);
  Mat rows;  // in fp32, once one of them needs it
  uint8_t* rounded = nullptr;
  for (int64_t j = 0; j < count; ++j) {
    StoredType from{};
    if (const uint8_t* held = blocks_of_row(s, row + j, out.type, from)) {
      read_blocks(from, held, k, codes + j * k, scales + j * blocks);
      if (all_finite(scales + j * blocks, blocks)) continue;
    }
    if (rows.empty()) {
      rows = Mat(scratch.take<float>(count * k), f32_t, count, k);
      rounded = scratch.take<uint8_t>(blocks * 34);
      read_rows(s, row, rows);
    }
    quantise_rows(block_type(out.type), rows.f32(j), 1, k, k, rounded);
    read_blocks(block_type(out.type), rounded, k, codes + j * k, scales + j * blocks);
  }
  write_panel(out.type, k, codes, scales, out.data + panel * kernels::quant_panel_bytes(out.type, k));
}

}  // namespace

int64_t QuantMatrix::bytes(QuantType type, int64_t rows, int64_t cols) {
  BK_CHECK_EQ(cols % kQuantBlock, 0);
  return round_up(div_up(rows, kPanel) * kernels::quant_panel_bytes(type, cols), 64);
}

void quantise(const Exec& exec, const QuantSource& source, const QuantMatrix& out) {
  BK_CHECK(out.data && out.cols % kQuantBlock == 0);
  BK_CHECK(out.rows == source.rows() && out.cols == source.cols());
  BK_CHECK_LE(source.first + source.count, source.from->rows);
  if (exec.dry()) return;
  exec.parallel_for(div_up(out.rows, kPanel), [&](int64_t panel) { quantise_panel(source, out, panel); });
}

bool has_quant_blocks(const StoredMatrix& w) {
  return std::all_of(w.parts.begin(), w.parts.end(),
                     [](const StoredMatrix::Part& part) { return quant_type(part.tensor.type).has_value(); });
}

bool lies_across(const QuantSource& source) {
  bool across = false;
  for_parts_of(source, [&](const StoredMatrix::Part& part) { across |= part.turned != source.transposed; });
  return across;
}

std::optional<QuantType> lossless_type(const QuantSource& source) {
  if (lies_across(source)) return std::nullopt;
  for (const QuantType type : {QuantType::q4, QuantType::q8}) {
    bool holds = true;
    for_parts_of(source, [&](const StoredMatrix::Part& part) { holds &= holds_blocks(part.tensor.type, type); });
    if (holds) return type;
  }
  return std::nullopt;
}

}  // namespace birkhoff::ops
