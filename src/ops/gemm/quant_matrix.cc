#include "ops/gemm/quant_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"
#include "kernels/gemm/gemm.h"
#include "ops/gemm/mxfp4.h"
#include "ops/gemm/quantise.h"
#include "ops/tasks.h"

namespace birkhoff::ops {
namespace {

using kernels::kPanel;
using kernels::kQuantBlock;

// Types by the bits of a weight, from the fewest on.
constexpr QuantType kBySize[] = {QuantType::fp4, QuantType::q4, QuantType::q4_1, QuantType::q8};

// Blocks that hold what a panel of type t holds.
constexpr StoredType block_type(QuantType t) {
  constexpr StoredType kBlocks[] = {StoredType::q4_0, StoredType::q8_0, StoredType::q4_1, StoredType::mxfp4};
  return kBlocks[static_cast<int>(t)];
}

// Codes of Q4_0 are codes of 8 bits too.
bool holds(QuantType type, const StoredTensor& from) {
  if (from.type == StoredType::fp4) return type == QuantType::fp4 && holds_mxfp4(from);
  return from.type == block_type(type) || (type == QuantType::q8 && from.type == StoredType::q4_0);
}

// The smallest type that holds all of `parts`.
std::optional<QuantType> common_type(std::span<const StoredMatrix::Part* const> parts) {
  for (const QuantType type : kBySize)
    if (std::all_of(parts.begin(), parts.end(), [&](const auto* part) { return holds(type, part->tensor); }))
      return type;
  return std::nullopt;
}

// Blocks of a row, one after the other: codes, and scales of `scale_bytes` each, at their own distances.
struct Blocks {
  StoredType type;
  const uint8_t *codes, *scales;
  int64_t code_step, scale_step, scale_bytes;
  static Blocks of(StoredType type, const uint8_t* row) {
    const int64_t scale = type == StoredType::mxfp4 ? 1 : type == StoredType::q4_1 ? 4 : 2;
    const int64_t step = stored_format(type).block_bytes;
    return {type, row + scale, row, step, step, scale};
  }
  // Row `row` of a tensor that a QuantType holds, from column `col` on.
  static Blocks of(const StoredTensor& t, int64_t row, int64_t col) {
    if (t.type != StoredType::fp4)
      return of(t.type, t.row(row) + col / kQuantBlock * stored_format(t.type).block_bytes);
    const int64_t scales = div_up(t.cols, kQuantBlock);
    return {t.type, t.row(row) + col / 2, t.scale + row * scales + col / kQuantBlock, kQuantBlock / 2, 1, 1};
  }
};

// Whether every scale and minimum is a number: an exponent of ones is none.
bool all_finite(const Blocks& from, int64_t count) {
  for (int64_t b = 0; b < count; ++b) {
    const uint8_t* scale = from.scales + b * from.scale_step;
    if (from.scale_bytes == 1 ? scale[0] == 255 : (scale[1] & 0x7c) == 0x7c) return false;
    if (from.scale_bytes == 4 && (scale[3] & 0x7c) == 0x7c) return false;
  }
  return true;
}

// The 16 bytes of a block of 4 bits as ggml has them: codes 0 to 15 in the low halves, 16 to 31 in the high ones.
void nibbles_at(const Blocks& from, int64_t b, uint8_t (&out)[16]) {
  const uint8_t* p = from.codes + b * from.code_step;
  if (from.type == StoredType::fp4)
    pair_halves(p, out);
  else
    std::memcpy(out, p, sizeof out);
}

uint32_t word_at(const uint8_t* p) {
  uint32_t w;
  std::memcpy(&w, p, sizeof w);
  return w;
}

// The codes of row j of a panel, in words of 4 columns.
void write_codes(QuantType type, const Blocks& from, int64_t count, int64_t j, uint8_t* panel) {
  uint8_t* out = panel + j * 4;
  const auto put = [&](int64_t group, uint32_t word) { std::memcpy(out + group * 64, &word, sizeof word); };
  constexpr uint32_t kLow = 0x0f0f0f0f;
  for (int64_t b = 0; b < count; ++b, out += kernels::quant_code_bytes(type)) {
    if (from.type == StoredType::q8_0) {
      for (int64_t i = 0; i < 8; ++i) put(i, word_at(from.codes + b * from.code_step + 4 * i));
      continue;
    }
    uint8_t nibbles[16];
    nibbles_at(from, b, nibbles);
    for (int64_t i = 0; i < 4; ++i) {  // groups i of the low and of the high halves
      const uint32_t w = word_at(nibbles + 4 * i);
      if (type == QuantType::q8) {
        uint8_t bytes[8];
        for (int q = 0; q < 4; ++q) {
          bytes[q] = static_cast<uint8_t>((nibbles[4 * i + q] & 15) - 8);
          bytes[4 + q] = static_cast<uint8_t>((nibbles[4 * i + q] >> 4) - 8);
        }
        put(i, word_at(bytes));
        put(4 + i, word_at(bytes + 4));
      } else if (i % 2 == 0) {
        const uint32_t next = word_at(nibbles + 4 * i + 4);
        put(i / 2, (w & kLow) | (next & kLow) << 4);
        put(2 + i / 2, (w >> 4 & kLow) | (next & ~kLow));
      }
    }
  }
}

// The scales of row j, behind the codes: all of a block's rows together, minima after scales.
void write_scales(QuantType type, const Blocks& from, int64_t count, int64_t j, uint8_t* panel) {
  uint8_t* out = panel + count * kernels::quant_code_bytes(type);
  const int64_t bytes = std::min<int64_t>(2, from.scale_bytes);
  for (int64_t b = 0; b < count; ++b, out += kernels::quant_scale_bytes(type)) {
    const uint8_t* scale = from.scales + b * from.scale_step;
    std::memcpy(out + j * bytes, scale, static_cast<size_t>(bytes));
    if (from.scale_bytes == 4) std::memcpy(out + (kPanel + j) * 2, scale + 2, 2);
  }
}

// The parts of the file that a source is made of.
std::vector<const StoredMatrix::Part*> parts_of(const QuantSource& s) {
  std::vector<const StoredMatrix::Part*> parts;
  int64_t row = 0;
  for (const StoredMatrix::Part& part : s.from->parts) {
    if (row < s.first + s.count && row + part.rows() > s.first) parts.push_back(&part);
    row += part.rows();
  }
  return parts;
}

// Row `row` of the source, where the file holds it as blocks of `type`.
std::optional<Blocks> blocks_of_row(const QuantSource& s, int64_t row, QuantType type) {
  int64_t first = s.transposed ? s.first : s.first + row;
  const StoredMatrix::Part* part = s.from->part_of(first, s.transposed ? s.count : 1);
  if (!part || part->turned != s.transposed || !holds(type, part->tensor)) return std::nullopt;
  if (!s.transposed) return Blocks::of(part->tensor, first, 0);
  if (first % kQuantBlock) return std::nullopt;
  return Blocks::of(part->tensor, row, first);
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

void quantise_panel(const QuantSource& s, const QuantMatrix& out, int64_t panel) {
  WorkerScratch scratch;
  const int64_t k = out.cols, blocks = k / kQuantBlock, row = panel * kPanel, count = std::min(kPanel, out.rows - row),
                bytes = kernels::quant_panel_bytes(out.type, k);
  uint8_t* to = out.data + panel * bytes;
  if (count < kPanel) std::memset(to, 0, static_cast<size_t>(bytes));
  Mat rows;  // in fp32, once one of them needs it
  uint8_t* rounded = nullptr;
  for (int64_t j = 0; j < count; ++j) {
    std::optional<Blocks> from = blocks_of_row(s, row + j, out.type);
    if (!from || !all_finite(*from, blocks)) {
      const StoredType type = block_type(out.type);
      if (rows.empty()) {
        rows = Mat(scratch.take<float>(count * k), f32_t, count, k);
        rounded = scratch.take<uint8_t>(blocks * stored_format(type).block_bytes);
        read_rows(s, row, rows);
      }
      quantise_rows(type, rows.f32(j), 1, k, k, rounded);
      from = Blocks::of(type, rounded);
    }
    write_codes(out.type, *from, blocks, j, to);
    write_scales(out.type, *from, blocks, j, to);
  }
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

bool has_quant_blocks(const StoredMatrix& w) { return common_type(parts_of({&w, 0, w.rows, false})).has_value(); }

bool lies_across(const QuantSource& source) {
  const auto parts = parts_of(source);
  return std::any_of(parts.begin(), parts.end(),
                     [&](const StoredMatrix::Part* part) { return part->turned != source.transposed; });
}

std::optional<QuantType> lossless_type(const QuantSource& source) {
  return lies_across(source) ? std::nullopt : common_type(parts_of(source));
}

}  // namespace birkhoff::ops
