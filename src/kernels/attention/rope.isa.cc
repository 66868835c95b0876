#include "kernels/attention/rope.h"

#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

#if defined(__AVX512F__)
// Neighbours change places; and each of kLanes/2 values twice.
V swap_pairs(V v) { return _mm512_permute_ps(v, 0xB1); }
V twice(const float* p, int n) {
  const __m512i index = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  return _mm512_permutexvar_ps(index, load_n(p, n / 2));
}
V even_negated(V v) { return _mm512_mask_sub_ps(v, 0x5555, set1(0.f), v); }
#elif defined(__AVX2__)
V swap_pairs(V v) { return _mm256_permute_ps(v, 0xB1); }
V twice(const float* p, int n) {
  return _mm256_permutevar8x32_ps(load_n(p, n / 2), _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
}
V even_negated(V v) { return _mm256_xor_ps(v, _mm256_setr_ps(-0.f, 0.f, -0.f, 0.f, -0.f, 0.f, -0.f, 0.f)); }
#endif

// (a, b) -> (a cos - b sin, b cos + a sin) for neighbouring channels: x cos + swapped x (-sin, sin).
template <class T>
void interleaved(const RopeRows& a) {
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* c = a.cos + a.pos[r] * (a.dim / 2);
    const float* s = a.sin + a.pos[r] * (a.dim / 2);
    T* row = static_cast<T*>(a.x) + r * a.stride;
#if defined(__AVX2__)
    for_lanes(a.dim, [&](int64_t i, int n) {  // n is even: dim and kLanes are
      const V cc = twice(c + i / 2, n), ss = even_negated(twice(s + i / 2, n) * set1(a.sign));
      for (int64_t h = 0; h < a.heads; ++h) {
        T* p = row + h * a.head_stride + i;
        const V x = load_some(p, n);
        store_some(p, fma(swap_pairs(x), ss, x * cc), n);
      }
    });
#else
    for (int64_t h = 0; h < a.heads; ++h) {
      T* p = row + h * a.head_stride;
      for (int64_t i = 0; i < a.dim; i += 2) {
        const float u = to_float(p[i]), v = to_float(p[i + 1]), sn = s[i / 2] * a.sign;
        store(p + i, u * c[i / 2] - v * sn);
        store(p + i + 1, v * c[i / 2] + u * sn);
      }
    }
#endif
  }
}

template <class T>
void half_split(const RopeRows& a) {
  const int64_t half = a.dim / 2;
  for (int64_t r = 0; r < a.rows; ++r) {
    const float* c = a.cos + a.pos[r] * half;
    const float* s = a.sin + a.pos[r] * half;
    T* row = static_cast<T*>(a.x) + r * a.stride;
    for_lanes(half, [&](int64_t i, int n) {
      const V cc = load_some(c + i, n), ss = load_some(s + i, n) * set1(a.sign), minus = set1(0.f) - ss;
      for (int64_t h = 0; h < a.heads; ++h) {
        T* p = row + h * a.head_stride + i;
        const V u = load_some(p, n), v = load_some(p + half, n);
        store_some(p, fma(v, minus, u * cc), n);
        store_some(p + half, fma(u, ss, v * cc), n);
      }
    });
  }
}

}  // namespace

const RopeKernels rope_kernels = {interleaved<float>, interleaved<bf16>, half_split<float>, half_split<bf16>};

}  // namespace birkhoff::kernels::BK_ISA
