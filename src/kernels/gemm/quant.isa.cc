#if defined(__GNUC__) && !defined(__clang__)  // GCC 12 finds its own intrinsics' undefined operands uninitialised
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "kernels/gemm/quant.h"

#include "kernels/gemm/quant_vector.h"
#if defined(BK_ISA_amx)
#include "kernels/gemm/quant_amx.h"
#endif

namespace birkhoff::kernels::BK_ISA {
namespace {

template <QuantType T>
void product(const QuantProduct& g) {
#if defined(BK_ISA_amx)
  quant_tiles<T>(g);
#else
  for (int64_t panel = 0; panel * kPanel < g.n; ++panel) quant_panel<T>(g, 0, panel);
#endif
}

inline V absolute(V x) { return max(x, set1(0.f) - x); }

// Codes of kLanes numbers that lie within [-127, 127].
inline void store_codes(int8_t* to, V x) {
#if defined(__AVX512F__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x)));
#elif defined(__AVX2__)
  const __m256i i = _mm256_cvtps_epi32(x);
  const __m128i h = _mm_packs_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packs_epi16(h, h));
#else
  *to = x == x ? static_cast<int8_t>(__builtin_rintf(x)) : 0;
#endif
}

template <class T>
void activations(const T* x, int64_t k, const QuantRows& row) {
  for (int64_t b = 0; b < k / kQuantBlock; ++b, x += kQuantBlock) {
    V most = set1(0.f), poison = set1(0.f);  // the second is 0, or NaN where a number is not finite
    for (int64_t i = 0; i < kQuantBlock; i += kLanes) {
      const V v = load(x + i);
      most = max(absolute(v), most);
      poison = fma(v, set1(0.f), poison);
    }
    const float largest = reduce_max(most) + reduce_add(poison);
    const V inverse = set1(largest > 1e-30f ? 127.f / largest : 0.f);  // below that a block is zero
    int8_t* codes = row.codes + b * kQuantBlock;
    for (int64_t i = 0; i < kQuantBlock; i += kLanes) store_codes(codes + i, load(x + i) * inverse);
    int32_t sum = 0;
    for (int64_t i = 0; i < kQuantBlock; ++i) sum += codes[i];
    row.scale[b] = largest / 127.f;
    row.sum[b] = row.scale[b] * static_cast<float>(sum);
    row.start[b] = -8 * sum;
  }
}

}  // namespace

const QuantKernels quant_kernels = {
    {product<QuantType::q4>, product<QuantType::q8>, product<QuantType::q4_1>, product<QuantType::fp4>},
    activations<float>,
    activations<bf16>};

}  // namespace birkhoff::kernels::BK_ISA
