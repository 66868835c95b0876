#include "kernels/attention/attention.h"
#include "kernels/vec.h"

namespace birkhoff::kernels::BK_ISA {
namespace {

template <class T>
void copy_row(const T* x, T* out, int64_t n) {
  for_lanes(n, [&](int64_t i, int m) { store_some(out + i, load_some(x + i, m), m); });
}

template <class T>
void expand(const MlaExpand& a) {
  for (int64_t r = 0; r < a.rows; ++r) {
    const T* kv = static_cast<const T*>(a.kv.data) + r * a.kv.stride;
    const T* rope = static_cast<const T*>(a.k_rope.data) + r * a.k_rope.stride;
    T* k = static_cast<T*>(a.k) + r * a.k_stride;
    T* v = static_cast<T*>(a.v) + r * a.v_stride;
    for (int64_t h = 0; h < a.heads; ++h) {
      copy_row(kv, k, a.nope);
      copy_row(rope, k + a.nope, a.rope);
      copy_row(kv + a.nope, v, a.v_dim);
      kv += a.nope + a.v_dim, k += a.nope + a.rope, v += a.v_dim;
    }
  }
}

template <class T>
void gather(const MlaGather& a) {
  for (int64_t r = 0; r < a.rows; ++r) {
    const T* dk = static_cast<const T*>(a.dk.data) + r * a.dk.stride;
    const T* dv = static_cast<const T*>(a.dv.data) + r * a.dv.stride;
    T* dkv = static_cast<T*>(a.dkv) + r * a.dkv_stride;
    T* dk_rope = static_cast<T*>(a.dk_rope) + r * a.dk_rope_stride;
    const int64_t qk = a.nope + a.rope;
    for (int64_t h = 0; h < a.heads; ++h) {
      copy_row(dk + h * qk, dkv + h * (a.nope + a.v_dim), a.nope);
      copy_row(dv + h * a.v_dim, dkv + h * (a.nope + a.v_dim) + a.nope, a.v_dim);
    }
    for_lanes(a.rope, [&](int64_t i, int n) {
      V sum = set1(0.f);
      for (int64_t h = 0; h < a.heads; ++h) sum = sum + load_some(dk + h * qk + a.nope + i, n);
      store_some(dk_rope + i, sum, n);
    });
  }
}

}  // namespace

const MlaKernels mla_kernels = {expand<float>, expand<bf16>, gather<float>, gather<bf16>};

}  // namespace birkhoff::kernels::BK_ISA
