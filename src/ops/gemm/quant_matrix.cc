#include "ops/gemm/quant_matrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "core/error.h"
#include "kernels/gemm/gemm.h"
#include "ops/tasks.h"

namespace birkhoff::ops {
namespace {

using kernels::kPanel;
using kernels::kQuantBlock;

// fp32 to IEEE half, to nearest even.
uint16_t to_half(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  bits &= 0x7fffffff;
  if (bits >= 0x47800000) return sign | 0x7c00;
  if (bits < 0x38800000) {  // subnormal: the sum has the fraction in its lowest bits, rounded
    float size;
    std::memcpy(&size, &bits, 4);
    size += 0.5f;
    std::memcpy(&bits, &size, 4);
    return static_cast<uint16_t>(sign | (bits - 0x3f000000));
  }
  return static_cast<uint16_t>(sign | ((bits + 0xc8000fff + (bits >> 13 & 1)) >> 13));
}

// One block of fp32 weights: codes and half scale as ggml's reference quantiser makes them.
uint16_t quantise_block(QuantType type, const float* x, int8_t* codes) {
  float most = 0, signed_most = 0;
  for (int64_t i = 0; i < kQuantBlock; ++i)
    if (std::fabs(x[i]) > most) most = std::fabs(x[i]), signed_most = x[i];
  const float scale = type == QuantType::q4 ? signed_most / -8 : most / 127, inverse = scale != 0 ? 1 / scale : 0;
  for (int64_t i = 0; i < kQuantBlock; ++i)
    codes[i] = type == QuantType::q4 ? static_cast<int8_t>(std::min(15, static_cast<int>(x[i] * inverse + 8.5f)) - 8)
                                     : static_cast<int8_t>(std::round(x[i] * inverse));
  return to_half(scale);
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

void quantise_panel(const StoredMatrix& w, int64_t first_row, bool transposed, const QuantMatrix& out, int64_t panel) {
  WorkerScratch scratch;
  const int64_t k = out.cols, blocks = k / kQuantBlock, row = panel * kPanel, count = std::min(kPanel, out.rows - row);
  const Mat rows(scratch.take<float>(count * k), f32_t, count, k);
  auto* codes = scratch.take<int8_t>(kPanel * k);
  auto* scales = scratch.take<uint16_t>(kPanel * blocks);
  read_rows(w, first_row, transposed, row, count, rows);
  for (int64_t j = 0; j < kPanel; ++j) {
    if (j >= count) {
      std::memset(codes + j * k, 0, static_cast<size_t>(k));
      std::memset(scales + j * blocks, 0, static_cast<size_t>(blocks) * 2);
      continue;
    }
    require_finite(rows.f32(j), k, row + j);
    for (int64_t b = 0; b < blocks; ++b)
      scales[j * blocks + b] = quantise_block(out.type, rows.f32(j) + b * kQuantBlock, codes + j * k + b * kQuantBlock);
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

}  // namespace birkhoff::ops
