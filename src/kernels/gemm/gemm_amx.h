// bf16 products in AMX tiles: 2 x 2 tiles of C (32 x 32 sums) per step, or 1 x 4 for the last 16 rows or fewer.
// A tiles are read from row-major memory as they are, B tiles are consecutive kilobytes of a panel.
// Included by gemm.isa.cc only.
#pragma once
#include "kernels/gemm/gemm.h"
#include "kernels/gemm/tile_config.h"
#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {

inline void compiler_barrier() {
  __asm__ volatile("" ::: "memory");
}  // tile loads do not tell GCC that they read memory

// Tiles 0-3: C. 4, 5: A. 6, 7: B. Rows of C and A follow the block, so short blocks neither read nor compute padding
// rows.
inline void configure_tiles(int64_t rows0, int64_t rows1) {
  TileConfig t;
  const auto r0 = static_cast<uint8_t>(rows0), r1 = static_cast<uint8_t>(rows1 ? rows1 : rows0);
  t.rows[0] = t.rows[1] = t.rows[4] = r0;
  t.rows[2] = t.rows[3] = t.rows[5] = r1;
  t.rows[6] = t.rows[7] = 16;
  load_tile_config(t);
}

// Sums of one step, as tilestored left them, on their way to C.
struct alignas(64) TileBuffer {
  float v[kGemmRows * kGemmRows * 2];  // 32 x 32 or 16 x 64
};

// The most frequent case: 32 whole columns, rounded and stored a cache line at a time.
inline void store_rows_32(bf16* c, int64_t c_row, int64_t rows, const float* from) {
  for (int64_t r = 0; r < rows; ++r, from += 32, c += c_row)
    _mm512_storeu_si512(c, (__m512i)_mm512_cvtne2ps_pbh(load(from + 16), load(from)));
}

inline void store_rows(const GemmBlock& g, int64_t row, int64_t rows, int64_t col, int64_t cols, const float* from,
                       int64_t from_row) {
  cols = cols < g.n - col ? cols : g.n - col;
  if (g.store == GemmStore::assign_bf16 && cols == 32 && from_row == 32)
    return store_rows_32(static_cast<bf16*>(g.c) + row * g.c_row + col, g.c_row, rows, from);
  for (int64_t r = 0; r < rows; ++r, from += from_row) {
    const int64_t at = (row + r) * g.c_row + col;
    if (g.store == GemmStore::assign_bf16) {
      bf16* c = static_cast<bf16*>(g.c) + at;
      for_lanes(cols, [&](int64_t i, int n) { store_some(c + i, load(from + i), n); });
    } else if (g.store == GemmStore::add_f32) {
      float* c = static_cast<float*>(g.c) + at;
      for_lanes(cols, [&](int64_t i, int n) { store_some(c + i, load_some(c + i, n) + load(from + i), n); });
    } else {
      float* c = static_cast<float*>(g.c) + at;
      for_lanes(cols, [&](int64_t i, int n) { store_some(c + i, load(from + i), n); });
    }
  }
}

// This step's share of the next 32 rows of A, asked for one cache line per row and block of k.
struct Fetch {
  const bf16* a;
  int64_t rows;
};

// One step's operands. A's last block of k is a zero-padded copy when k is not a multiple of 32.
struct TileStep {
  const bf16 *a, *a_tail;  // first row; copy of the tail, rows of 32 (unused when whole)
  int64_t a_bytes;
  const bf16* b;  // first panel at its row 0
  int64_t b_panel;
  int64_t whole;  // blocks of 32 read from a
  Fetch next;
};

#define BK_STEP_2X2(a, a_bytes, b)                   \
  _tile_loadd(4, a, a_bytes);                        \
  _tile_loadd(6, b, 64);                             \
  _tile_loadd(7, (b) + s.b_panel, 64);               \
  _tile_dpbf16ps(0, 4, 6);                           \
  _tile_dpbf16ps(1, 4, 7);                           \
  _tile_loadd(5, (a) + (a_bytes) / 2 * 16, a_bytes); \
  _tile_dpbf16ps(2, 5, 6);                           \
  _tile_dpbf16ps(3, 5, 7);
inline void multiply_2x2(const TileStep& s) {
  const bf16 *a = s.a, *b = s.b;
  for (int64_t i = 0; i < s.whole; ++i, a += kKBlock, b += kKBlock * kPanel) {
    BK_STEP_2X2(a, s.a_bytes, b)
    for (int64_t r = 0; r < s.next.rows; ++r) __builtin_prefetch(s.next.a + r * (s.a_bytes / 2) + i * kKBlock, 0, 2);
  }
  if (s.a_tail) {
    BK_STEP_2X2(s.a_tail, 64, b)
  }
}
#undef BK_STEP_2X2

#define BK_STEP_2X1(a, a_bytes, b)                   \
  _tile_loadd(4, a, a_bytes);                        \
  _tile_loadd(6, b, 64);                             \
  _tile_dpbf16ps(0, 4, 6);                           \
  _tile_loadd(5, (a) + (a_bytes) / 2 * 16, a_bytes); \
  _tile_dpbf16ps(2, 5, 6);
inline void multiply_2x1(const TileStep& s) {
  const bf16 *a = s.a, *b = s.b;
  for (int64_t i = 0; i < s.whole; ++i, a += kKBlock, b += kKBlock * kPanel) {
    BK_STEP_2X1(a, s.a_bytes, b)
  }
  if (s.a_tail) {
    BK_STEP_2X1(s.a_tail, 64, b)
  }
}
#undef BK_STEP_2X1

// One row tile against `panels` <= 4 panels.
inline void step_1x4(const bf16* a, int64_t a_bytes, const bf16* b, int64_t b_panel, int64_t panels) {
  _tile_loadd(4, a, a_bytes);
  _tile_loadd(6, b, 64);
  _tile_dpbf16ps(0, 4, 6);
  if (panels > 1) {
    _tile_loadd(7, b + b_panel, 64);
    _tile_dpbf16ps(1, 4, 7);
  }
  if (panels > 2) {
    _tile_loadd(6, b + 2 * b_panel, 64);
    _tile_dpbf16ps(2, 4, 6);
  }
  if (panels > 3) {
    _tile_loadd(7, b + 3 * b_panel, 64);
    _tile_dpbf16ps(3, 4, 7);
  }
}
inline void multiply_1x4(const TileStep& s, int64_t panels) {
  const bf16 *a = s.a, *b = s.b;
  for (int64_t i = 0; i < s.whole; ++i, a += kKBlock, b += kKBlock * kPanel)
    step_1x4(a, s.a_bytes, b, s.b_panel, panels);
  if (s.a_tail) step_1x4(s.a_tail, 64, b, s.b_panel, panels);
}

// Sums start at zero or where the previous call left them. right: distance from tile 0 to 1; down: from 0 to 2.
inline void start_tiles(const float* from, int64_t row_bytes, int64_t tile1, int64_t tile2, int64_t tile3) {
  compiler_barrier();
  if (!from) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    return;
  }
  _tile_loadd(0, from, row_bytes);
  if (tile1) _tile_loadd(1, from + tile1, row_bytes);
  if (tile2) _tile_loadd(2, from + tile2, row_bytes);
  if (tile3) _tile_loadd(3, from + tile3, row_bytes);
}
inline void store_tiles(float* to, int64_t row_bytes, int64_t tile1, int64_t tile2, int64_t tile3) {
  _tile_stored(0, to, row_bytes);
  if (tile1) _tile_stored(1, to + tile1, row_bytes);
  if (tile2) _tile_stored(2, to + tile2, row_bytes);
  if (tile3) _tile_stored(3, to + tile3, row_bytes);
}

inline Fetch share_of_next_rows(const GemmBlock& g, int64_t row, int64_t step, int64_t steps) {
  const int64_t per = (kGemmRows + steps - 1) / steps, first = row + kGemmRows + step * per;
  int64_t end = first + per;
  if (end > row + 2 * kGemmRows) end = row + 2 * kGemmRows;
  if (end > g.m) end = g.m;
  return {static_cast<const bf16*>(g.a) + first * g.a_row, end - first};
}

// Up to 32 rows against all columns.
inline void tile_rows(const GemmBlock& g, int64_t row, int64_t rows, TileStep s) {
  const bool two = rows > 16;
  const int64_t width = two ? 2 : 4, panels = (g.n + kPanel - 1) / kPanel;
  TileBuffer buffer;
  for (int64_t p = 0; p < panels; p += width, s.b += width * s.b_panel) {
    const int64_t some = panels - p < width ? panels - p : width, col = p * kPanel;
    float* partial = g.partial ? partial_at(g, row, col) : nullptr;
    // Distances between the step's tiles in a row-major matrix; 0: the tile is not used.
    const auto place = [&](int64_t stride, int64_t third, int64_t* at) {
      at[0] = some > 1 ? 16 : 0;
      at[1] = two ? 16 * stride : some > 2 ? third : 0;
      at[2] = two ? (some > 1 ? 16 * stride + 16 : 0) : some > 3 ? third + 16 : 0;
    };
    int64_t at[3];
    place(kGemmRows, g.partial_block, at);
    s.next = share_of_next_rows(g, row, p / width, (panels + width - 1) / width);
    start_tiles(g.first ? nullptr : partial, kGemmRows * 4, at[0], at[1], at[2]);
    if (!two)
      multiply_1x4(s, some);
    else if (some == 2)
      multiply_2x2(s);
    else
      multiply_2x1(s);
    if (!g.last) {
      store_tiles(partial, kGemmRows * 4, at[0], at[1], at[2]);
    } else if (g.store == GemmStore::assign_f32 && col + some * kPanel <= g.n) {
      place(g.c_row, 32, at);
      store_tiles(static_cast<float*>(g.c) + row * g.c_row + col, g.c_row * 4, at[0], at[1], at[2]);
    } else {
      const int64_t stride = width * kPanel;
      place(stride, 32, at);
      store_tiles(buffer.v, stride * 4, at[0], at[1], at[2]);
      store_rows(g, row, rows, col, some * kPanel, buffer.v, stride);
    }
  }
}

inline void amx_block(const GemmBlock& g) {
  alignas(64) uint16_t tail[kGemmRows][kKBlock];  // bits of bf16
  const int64_t left = g.k % kKBlock;
  for (int64_t row = 0; row < g.m; row += kGemmRows) {
    const int64_t rows = g.m - row < kGemmRows ? g.m - row : kGemmRows;
    if (row == 0 || rows < kGemmRows) configure_tiles(rows < 16 ? rows : 16, rows > 16 ? rows - 16 : 0);
    const bf16* a = static_cast<const bf16*>(g.a) + row * g.a_row;
    if (left) {
      __builtin_memset(tail, 0, sizeof tail);
      for (int64_t r = 0; r < rows; ++r)
        __builtin_memcpy(tail[r], a + r * g.a_row + g.k - left, static_cast<size_t>(left) * sizeof(bf16));
    }
    tile_rows(g, row, rows,
              {a,
               left ? reinterpret_cast<const bf16*>(tail) : nullptr,
               g.a_row * 2,
               static_cast<const bf16*>(g.b),
               g.b_panel,
               g.k / kKBlock,
               {}});
  }
  _tile_release();
}

}  // namespace birkhoff::kernels::BK_ISA
