#if defined(__GNUC__) && !defined(__clang__)  // GCC 12 finds its own intrinsics' undefined operands uninitialised
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "kernels/gemm.h"

#include "kernels/gemm_vector.h"
#if defined(BK_ISA_amx)
#include "kernels/gemm_amx.h"
#endif

namespace birkhoff::kernels::BK_ISA {
namespace {

void f32(const GemmBlock& g) { run_block<float, RowsOfB<false>>(g); }
void transposed_f32(const GemmBlock& g) { run_block<float, RowsOfB<true>>(g); }

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

}  // namespace

const GemmKernels gemm_kernels = {f32, f32_pairs, bf16_pairs, transposed_f32};

}  // namespace birkhoff::kernels::BK_ISA
