// Quantised products in AMX tiles: 16 or 8 rows of activations against a panel, one block of 32 at a time. The sums of
// a block are scaled in vector registers while the tiles multiply the next one. The same bits as quant_vector.h.
// Included by quant.isa.cc only.
#pragma once
#include "kernels/gemm/quant_vector.h"
#include "kernels/gemm/tile_config.h"

namespace birkhoff::kernels::BK_ISA {

// Tiles 0 to 3: sums of four blocks, 4 and 5: activations, 6 and 7: weights.
inline void configure_quant_tiles(int rows) {
  TileConfig t;
  for (int i = 0; i < 6; ++i) t.rows[i] = static_cast<uint8_t>(rows);
  t.row_bytes[4] = t.row_bytes[5] = kQuantBlock;
  t.rows[6] = t.rows[7] = kQuantBlock / 4;
  load_tile_config(t);
}

// The codes of a panel as signed bytes, 512 a block.
template <QuantType T>
inline const int8_t* signed_codes(const uint8_t* panel, int64_t blocks, int8_t* buffer) {
  if constexpr (T == QuantType::q8) return reinterpret_cast<const int8_t*>(panel);
  const __m512i low = _mm512_set1_epi8(0x0f), values = nibble_values<T>(0);
  for (int64_t i = 0; i < blocks * 4; ++i) {
    const __m512i x = _mm512_loadu_si512(panel + i * 64);
    _mm512_storeu_si512(buffer + i * 128, _mm512_shuffle_epi8(values, _mm512_and_si512(x, low)));
    _mm512_storeu_si512(buffer + i * 128 + 64,
                        _mm512_shuffle_epi8(values, _mm512_and_si512(_mm512_srli_epi16(x, 4), low)));
  }
  return buffer;
}

struct alignas(64) QuantTileSums {
  int32_t v[4][16][16];
};

// sum[r] += the block's integer sums times both scales.
template <QuantType T, int R>
inline __attribute__((always_inline)) void add_block(const int32_t (&dot)[16][16], const uint8_t* scales,
                                                     const float* a_scale, const float* a_sum, int64_t a_step,
                                                     V (&sum)[R]) {
  const BlockScales<T> w(scales);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) w.add(_mm512_load_si512(dot[r]), a_scale[r * a_step], a_sum[r * a_step], sum[r]);
}

// Multiplies block b into tile `tile` and sends its sums to memory; a and w are the tiles of its operands.
#define BK_QUANT_BLOCK(tile, at, w, b)                          \
  _tile_zero(tile);                                             \
  _tile_loadd(at, a + (b)*kQuantBlock, g.k);                    \
  _tile_loadd(w, codes + (b)*kQuantBlock * kPanel, kPanel * 4); \
  _tile_dpbssd(tile, at, w);                                    \
  _tile_stored(tile, sums.v[tile], kPanel * 4);

template <QuantType T, int R>
inline void quant_tile_rows(const QuantProduct& g, int64_t row, int64_t panel, const int8_t* codes) {
  const int64_t blocks = g.k / kQuantBlock;
  const uint8_t* scales = g.panels + panel * quant_panel_bytes(T, g.k) + blocks * quant_code_bytes(T);
  const int8_t* a = g.a.codes + row * g.k;
  const float *a_scale = g.a.scale + row * blocks, *a_sum = g.a.sum + row * blocks;
  QuantTileSums sums;
  V sum[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) sum[r] = set1(0.f);
  const auto add = [&](int64_t b) __attribute__((always_inline)) {
    add_block<T, R>(sums.v[b % 4], scales + b * quant_scale_bytes(T), a_scale + b, a_sum + b, blocks, sum);
  };
  __asm__ volatile("" ::: "memory");  // tile loads do not tell the compiler that they read memory
  int64_t b = 0;
  for (; b + 4 <= blocks; b += 4) {  // a block is scaled three blocks later: tiles answer after some hundred cycles
    BK_QUANT_BLOCK(0, 4, 6, b)
    if (b) add(b - 3);
    BK_QUANT_BLOCK(1, 5, 7, b + 1)
    if (b) add(b - 2);
    BK_QUANT_BLOCK(2, 4, 6, b + 2)
    if (b) add(b - 1);
    BK_QUANT_BLOCK(3, 5, 7, b + 3)
    add(b);
  }
  if (b)
    for (int64_t i = b - 3; i < b; ++i) add(i);
  for (; b < blocks; ++b) {
    BK_QUANT_BLOCK(0, 4, 6, b)
    add_block<T, R>(sums.v[0], scales + b * quant_scale_bytes(T), a_scale + b, a_sum + b, blocks, sum);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) store_quant(g, sum[r], row + r, panel * kPanel);
}
#undef BK_QUANT_BLOCK

// Rows in tiles of 16, then one of 8; what is left goes through vectors.
template <QuantType T>
inline void quant_tiles(const QuantProduct& g) {
  const int64_t blocks = g.k / kQuantBlock, panels = (g.n + kPanel - 1) / kPanel;
  int64_t whole = g.m / 16 * 16, half = g.m - whole >= 8 ? 8 : 0;
  if (!g.signed_codes) whole = half = 0;
  int configured = 0;
  for (int64_t panel = 0; panel < panels; ++panel) {
    if (whole + half) {
      const int8_t* codes = signed_codes<T>(g.panels + panel * quant_panel_bytes(T, g.k), blocks, g.signed_codes);
      if (whole && configured != 16) configure_quant_tiles(configured = 16);
      for (int64_t row = 0; row < whole; row += 16) quant_tile_rows<T, 16>(g, row, panel, codes);
      if (half) {
        if (configured != 8) configure_quant_tiles(configured = 8);
        quant_tile_rows<T, 8>(g, whole, panel, codes);
      }
    }
    quant_panel<T>(g, whole + half, panel);
  }
  if (configured) _tile_release();
}

}  // namespace birkhoff::kernels::BK_ISA
