#include "ops/gemm/mxfp4.h"

#include <cstring>

#include "core/error.h"

namespace birkhoff::ops {
namespace {

constexpr int64_t kBlock = stored_format(StoredType::mxfp4).block_elements;

}  // namespace

bool holds_mxfp4(const StoredTensor& t) {
  return t.type == StoredType::fp4 && t.scale_type == ScaleType::f8_e8m0 && t.block_rows == 1 && t.block_cols == kBlock;
}

void pair_halves(const uint8_t* pairs, uint8_t (&out)[16]) {
  for (int i = 0; i < 16; ++i)
    out[i] = static_cast<uint8_t>((pairs[i / 2] >> i % 2 * 4 & 15) | (pairs[8 + i / 2] >> i % 2 * 4 & 15) << 4);
}

void mxfp4_rows(const StoredTensor& t, int64_t first, int64_t count, uint8_t* out) {
  BK_CHECK(holds_mxfp4(t) && t.cols % kBlock == 0 && first >= 0 && first + count <= t.rows);
  const int64_t blocks = t.cols / kBlock;
  for (int64_t i = first * blocks; i < (first + count) * blocks; ++i) {
    uint8_t codes[16];
    pair_halves(t.data + i * kBlock / 2, codes);
    *out++ = t.scale[i];
    std::memcpy(out, codes, sizeof codes);
    out += sizeof codes;
  }
}

}  // namespace birkhoff::ops
