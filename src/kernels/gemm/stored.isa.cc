// Expansion of stored number formats to fp32: bits are put in place in integer lanes, then one multiplication by the
// factor.
#if defined(__GNUC__) && !defined(__clang__)  // GCC 12 finds its own intrinsics' undefined operands uninitialised
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "kernels/gemm/stored.h"

#include "kernels/gemm/stored_codebooks.h"
#include "kernels/gemm/stored_values.h"
#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

float e4m3_value(uint32_t b) {
  const uint32_t sign = (b & 0x80u) << 24, magnitude = b & 0x7fu;
  if (magnitude == 0x7fu) return from_bits(sign | 0x7fc00000u);
  if (magnitude < 8) {
    const float f = static_cast<float>(magnitude) * 0x1p-9f;
    return sign ? -f : f;
  }
  return from_bits(sign | ((magnitude << 20) + (120u << 23)));
}
float e2m1_value(uint32_t nibble) {
  const uint32_t m = nibble & 7u;
  const float f = m < 4 ? 0.5f * static_cast<float>(m) : m == 7 ? 6.f : static_cast<float>(m - 2);
  return nibble & 8u ? -f : f;
}

#if defined(__AVX512F__)
using Bits = __m512i;
Bits bytes_at(const uint8_t* p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
Bits splat(int32_t x) { return _mm512_set1_epi32(x); }
Bits both(Bits a, Bits b) { return _mm512_and_si512(a, b); }
Bits either(Bits a, Bits b) { return _mm512_or_si512(a, b); }
Bits plus(Bits a, Bits b) { return _mm512_add_epi32(a, b); }
template <int n>
Bits left(Bits a) {
  return _mm512_slli_epi32(a, n);
}
V to_value(Bits a) { return _mm512_cvtepi32_ps(a); }
V as_value(Bits a) { return _mm512_castsi512_ps(a); }
Bits as_bits(V a) { return _mm512_castps_si512(a); }
// a where x < limit, else b
V choose_less(Bits x, int32_t limit, V a, V b) {
  return _mm512_mask_blend_ps(_mm512_cmplt_epi32_mask(x, splat(limit)), b, a);
}
V half_lanes(const uint8_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
V e5m2_lanes(const uint8_t* p) {
  return _mm512_cvtph_ps(
      _mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 8));
}
Bits nibbles_at(const uint8_t* p) {  // 8 bytes, low nibble first
  const __m512i shift = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
  const __m512i x = _mm512_inserti64x4(_mm512_set1_epi32(read<int32_t>(p)), _mm256_set1_epi32(read<int32_t>(p + 4)), 1);
  return both(_mm512_srlv_epi32(x, shift), splat(15));
}
V e2m1_lanes(const uint8_t* p) {
  alignas(64) static constexpr float kValues[16] = {0, .5, 1, 1.5, 2, 3, 4, 6, -0.f, -.5, -1, -1.5, -2, -3, -4, -6};
  return _mm512_permutexvar_ps(nibbles_at(p), _mm512_load_ps(kValues));
}
#elif defined(__AVX2__)
using Bits = __m256i;
Bits bytes_at(const uint8_t* p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))); }
Bits splat(int32_t x) { return _mm256_set1_epi32(x); }
Bits both(Bits a, Bits b) { return _mm256_and_si256(a, b); }
Bits either(Bits a, Bits b) { return _mm256_or_si256(a, b); }
Bits plus(Bits a, Bits b) { return _mm256_add_epi32(a, b); }
template <int n>
Bits left(Bits a) {
  return _mm256_slli_epi32(a, n);
}
V to_value(Bits a) { return _mm256_cvtepi32_ps(a); }
V as_value(Bits a) { return _mm256_castsi256_ps(a); }
Bits as_bits(V a) { return _mm256_castps_si256(a); }
V choose_less(Bits x, int32_t limit, V a, V b) {
  return _mm256_blendv_ps(b, a, as_value(_mm256_cmpgt_epi32(splat(limit), x)));
}
V half_lanes(const uint8_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
V e5m2_lanes(const uint8_t* p) {
  return _mm256_cvtph_ps(_mm_slli_epi16(_mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))), 8));
}
V e2m1_lanes(const uint8_t* p) {  // 4 bytes
  const __m256i x =
      both(_mm256_srlv_epi32(splat(read<int32_t>(p)), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28)), splat(15));
  const V magnitude =
      _mm256_permutevar8x32_ps(_mm256_setr_ps(0, .5, 1, 1.5, 2, 3, 4, 6), x);  // reads the low three bits
  return as_value(either(as_bits(magnitude), left<28>(both(x, splat(8)))));
}
#endif

#if defined(__AVX2__)
V e4m3_lanes(const uint8_t* p) {
  const Bits x = bytes_at(p), magnitude = both(x, splat(0x7f));
  const V normal = as_value(plus(left<20>(magnitude), splat(120 << 23)));
  const V finite = choose_less(magnitude, 8, to_value(magnitude) * set1(0x1p-9f), normal);
  const V v = choose_less(magnitude, 0x7f, finite, as_value(splat(0x7fc00000)));
  return as_value(either(as_bits(v), left<24>(both(x, splat(0x80)))));
}
V f32_lanes(const uint8_t* p) { return load(reinterpret_cast<const float*>(p)); }
V bf16_lanes(const uint8_t* p) { return load(reinterpret_cast<const bf16*>(p)); }
#define BK_LANES(expression) \
  static V lanes(const uint8_t* p, int64_t i) { return expression; }
#else
#define BK_LANES(expression) \
  static V lanes(const uint8_t* p, int64_t i) { return value(p, i); }
#endif

// value(p, i): element i of a row that starts at p; lanes(p, i): kLanes of them.
struct F32 {
  static float value(const uint8_t* p, int64_t i) { return read<float>(p + 4 * i); }
  BK_LANES(f32_lanes(p + 4 * i))
};
struct Bf16 {
  static float value(const uint8_t* p, int64_t i) {
    return from_bits(static_cast<uint32_t>(read<uint16_t>(p + 2 * i)) << 16);
  }
  BK_LANES(bf16_lanes(p + 2 * i))
};
struct F16 {
  static float value(const uint8_t* p, int64_t i) { return f16_value(read<uint16_t>(p + 2 * i)); }
  BK_LANES(half_lanes(p + 2 * i))
};
struct E4m3 {
  static float value(const uint8_t* p, int64_t i) { return e4m3_value(p[i]); }
  BK_LANES(e4m3_lanes(p + i))
};
struct E5m2 {
  static float value(const uint8_t* p, int64_t i) { return f16_value(static_cast<uint32_t>(p[i]) << 8); }
  BK_LANES(e5m2_lanes(p + i))
};
struct E2m1 {
  static float value(const uint8_t* p, int64_t i) {
    return e2m1_value(static_cast<uint32_t>(p[i / 2]) >> (i % 2 * 4) & 15u);
  }
  BK_LANES(e2m1_lanes(p + i / 2))
};
#undef BK_LANES
template <class T>
struct Converted {
  static float value(const uint8_t* p, int64_t i) {
    return static_cast<float>(read<T>(p + static_cast<int64_t>(sizeof(T)) * i));
  }
  static V lanes(const uint8_t* p, int64_t i) {
    float t[kLanes];
    for (int l = 0; l < kLanes; ++l) t[l] = value(p, i + l);
    return load(t);
  }
};

constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

float factor(const StoredTensor& w, int64_t row, int64_t block) {
  const int64_t per_row = (w.cols + w.block_cols - 1) / w.block_cols, at = row / w.block_rows * per_row + block;
  return w.scale_type == ScaleType::f32 ? read<float>(w.scale + 4 * at) : e8m0_value(w.scale[at]);
}

template <class Type>
void expand_scaled(const StoredTensor& w, int64_t row, int64_t rows, int64_t col, int64_t cols, float* out,
                   int64_t out_row) {
  for (int64_t r = 0; r < rows; ++r, out += out_row) {
    const uint8_t* p = w.row(row + r);
    for (int64_t c = col; c < col + cols;) {
      const int64_t block = c / w.block_cols, end = smaller(col + cols, (block + 1) * w.block_cols);
      const float f = factor(w, row + r, block);
      const V fv = set1(f);
      for (; c + kLanes <= end; c += kLanes) store(out + (c - col), Type::lanes(p, c) * fv);
      for (; c < end; ++c) out[c - col] = Type::value(p, c) * f;
    }
  }
}

template <class Type>
void expand_as(const StoredTensor& w, int64_t row, int64_t rows, int64_t col, int64_t cols, float* out,
               int64_t out_row) {
  if (w.scale_type != ScaleType::none) return expand_scaled<Type>(w, row, rows, col, cols, out, out_row);
  for (int64_t r = 0; r < rows; ++r, out += out_row) {  // without a multiplication, which would change a signalling NaN
    const uint8_t* p = w.row(row + r);
    int64_t c = 0;
    for (; c + kLanes <= cols; c += kLanes) store(out + c, Type::lanes(p, col + c));
    for (; c < cols; ++c) out[c] = Type::value(p, col + c);
  }
}

// Groups that stand in the columns whole are written where they belong.
template <class Type, StoredType type>
void expand_blocks(const StoredTensor& w, int64_t row, int64_t rows, int64_t col, int64_t cols, float* out,
                   int64_t out_row) {
  constexpr StoredFormat f = stored_format(type);
  constexpr int64_t groups = f.block_elements / kGroup;
  static_assert(groups * kGroup == f.block_elements);
  for (int64_t r = 0; r < rows; ++r, out += out_row) {
    const uint8_t* p = w.row(row + r);
    for (int64_t c = col; c < col + cols;) {
      const int64_t group = c / kGroup, first = c % kGroup, n = smaller(kGroup - first, col + cols - c);
      const uint8_t* block = p + group / groups * f.block_bytes;
      if (n == kGroup) {
        Type::group(block, static_cast<int>(group % groups), out + (c - col));
      } else {
        float whole[kGroup];
        Type::group(block, static_cast<int>(group % groups), whole);
        for (int64_t i = 0; i < n; ++i) out[c - col + i] = whole[first + i];
      }
      c += n;
    }
  }
}

using Expand = decltype(StoredKernels::expand);
using S = StoredType;
struct Expansion {
  S type;
  Expand expand;
};
#define BK_PLAIN(type, ...) \
  { S::type, expand_as<__VA_ARGS__> }
#define BK_BLOCKS(type, Type) \
  { S::type, expand_blocks<Type, S::type> }
constexpr Expansion kExpansions[] = {
    BK_PLAIN(f64, Converted<double>),
    BK_PLAIN(f32, F32),
    BK_PLAIN(f16, F16),
    BK_PLAIN(bf16, Bf16),
    BK_PLAIN(f8_e4m3, E4m3),
    BK_PLAIN(f8_e5m2, E5m2),
    BK_PLAIN(fp4, E2m1),
    BK_PLAIN(i8, Converted<int8_t>),
    BK_PLAIN(i16, Converted<int16_t>),
    BK_PLAIN(i32, Converted<int32_t>),
    BK_PLAIN(i64, Converted<int64_t>),
    BK_BLOCKS(q4_0, Q4_0),
    BK_BLOCKS(q4_1, Q4_1),
    BK_BLOCKS(q5_0, Q5_0),
    BK_BLOCKS(q5_1, Q5_1),
    BK_BLOCKS(q8_0, Q8_0),
    BK_BLOCKS(q2_k, Q2K),
    BK_BLOCKS(q3_k, Q3K),
    BK_BLOCKS(q4_k, Q4K),
    BK_BLOCKS(q5_k, Q5K),
    BK_BLOCKS(q6_k, Q6K),
    BK_BLOCKS(iq4_nl, Iq4Nl),
    BK_BLOCKS(iq4_xs, Iq4Xs),
    BK_BLOCKS(mxfp4, Mxfp4),
    BK_BLOCKS(nvfp4, Nvfp4),
    BK_BLOCKS(tq1_0, Tq1_0),
    BK_BLOCKS(tq2_0, Tq2_0),
    BK_BLOCKS(iq2_xxs, Iq2Xxs),
    BK_BLOCKS(iq2_xs, Iq2Xs),
    BK_BLOCKS(iq2_s, Iq2S),
    BK_BLOCKS(iq3_xxs, Iq3Xxs),
    BK_BLOCKS(iq3_s, Iq3S),
    BK_BLOCKS(iq1_s, Iq1S),
    BK_BLOCKS(iq1_m, Iq1M),
    BK_BLOCKS(q1_0, Q1_0),
    BK_BLOCKS(q2_0, Q2_0),
};
#undef BK_PLAIN
#undef BK_BLOCKS
constexpr bool in_order() {
  int at = 0;
  for (const Expansion& e : kExpansions)
    if (static_cast<int>(e.type) != at++) return false;
  return at == kStoredTypes;
}
static_assert(in_order());

void expand(const StoredTensor& w, int64_t row, int64_t rows, int64_t col, int64_t cols, float* out, int64_t out_row) {
  kExpansions[static_cast<int>(w.type)].expand(w, row, rows, col, cols, out, out_row);
}

}  // namespace

const StoredKernels stored_kernels = {expand};

}  // namespace birkhoff::kernels::BK_ISA
