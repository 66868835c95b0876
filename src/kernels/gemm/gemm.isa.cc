#if defined(__GNUC__) && !defined(__clang__)  // GCC 12 finds its own intrinsics' undefined operands uninitialised
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "kernels/gemm/gemm.h"

#include "kernels/gemm/gemm_row.h"
#include "kernels/gemm/gemm_vector.h"
#if defined(BK_ISA_amx)
#include "kernels/gemm/gemm_amx.h"
#endif

namespace birkhoff::kernels::BK_ISA {
namespace {

void f32(const GemmBlock& g) { run_block<float, RowsOfB<false>>(g); }
void strips_f32(const GemmBlock& g) { run_block<float, RowsOfB<true>>(g); }

// What a vector writes past its row of a strip, the next row overwrites.
template <class T>
void strips(const T* w, int64_t stride, int64_t k, int64_t m, float* out) {
  constexpr int kWhole = (kRows + kLanes - 1) / kLanes * kLanes;
  const int64_t apart = strip_floats(k, kRows);
  for (int64_t j = 0; j < k; ++j, w += stride) {
    float* to = out + j * kRows;
    for (int64_t i = 0; i < m; i += kRows, to += apart) {
      for (int v = 0; v < kWhole; v += kLanes) {
        const int64_t left = m - i - v;
        store(to + v, left >= kLanes ? load(w + i + v) : load_n(w + i + v, static_cast<int>(left > 0 ? left : 0)));
      }
    }
  }
}

#if defined(BK_ISA_amx)
constexpr auto f32_pairs = nullptr;
void bf16_pairs(const GemmBlock& g) { amx_block(g); }
#elif defined(BK_ISA_avx512)
constexpr auto f32_pairs = nullptr;
void bf16_pairs(const GemmBlock& g) { run_block<bf16, PairsNative>(g); }
#else
void f32_pairs(const GemmBlock& g) { run_block<bf16, PairsWidened>(g); }
constexpr auto bf16_pairs = nullptr;
#endif
#if !defined(BK_ISA_avx2)
constexpr auto row_by_bf16_rows = nullptr;
#endif

}  // namespace

const GemmKernels gemm_kernels = {f32,           f32_pairs,    bf16_pairs, strips_f32, row_by_bf16_rows,
                                  strips<float>, strips<bf16>, kRows};

}  // namespace birkhoff::kernels::BK_ISA
