// Passes over the wide state of one token: n streams of D channels, one after the other.
#pragma once
#include <cstdint>

#include "core/bf16.h"
#include "kernels/isa.h"

namespace birkhoff::kernels {

inline constexpr int kMaxStreams = 8;

// What the backward of a token needs and gives.
struct StreamGradients {
  float pre[kMaxStreams];                // d h
  float post[kMaxStreams];               // d g
  float res[kMaxStreams * kMaxStreams];  // d H, [k][j]
};

// fp32 rows that only these passes see are "arranged": in the order the vectors hold them, padded to a multiple of
// kArranged floats.
inline constexpr int kArranged = 32;
inline int64_t arranged_floats(int64_t d) { return (d + kArranged - 1) / kArranged * kArranged; }

template <class T>
struct StreamKernels {
  // out_k = post_k y + sum_j res[k][j] x_j, one rounding; squares[k] = |out_k|^2 of the rounded values. out may be x.
  void (*write)(const T* x, const T* y, const float* res, const float* post, T* out, int n, int64_t d, float* squares);
  void (*squares)(const T* x, int n, int64_t d, float* squares);
  // u = sum_i pre_i x_i (arranged); in = w u rstd (w arranged) with rstd = 1/sqrt(mean u^2 + eps) returned. in null: u
  // only, returns 0.
  float (*read_norm)(const T* x, const float* pre, const float* w, float eps, float* u, T* in, int n, int64_t d);
  // Backward of read_norm and of write: du from u, dw += (w, u, dw arranged); the dots of g (gradient of the written
  // state) and du with the streams.
  void (*dots)(const T* x, const T* y, const T* g, const T* d_in, const float* w, float rstd, const float* u, float* dw,
               T* du, int n, int64_t d, StreamGradients& out);
  // dx_j = sum_k res[k][j] g_k + pre_j du + proj_j - c_j x_j (proj null: none); y_before = sum_k post_before[k] dx_k
  // (null: none). dx may be g.
  void (*state_gradient)(const T* x, const T* g, const T* du, const float* res, const float* pre, const T* proj,
                         const float* c, T* dx, const float* post_before, T* y_before, int n, int64_t d);
  // out = sum_i w_i x_i with one rounding.
  void (*weighted_sum)(const T* x, const float* w, T* out, int n, int64_t d);
  // dw_i = sum_c d_out x_i
  void (*sum_dots)(const T* x, const T* d_out, float* dw, int n, int64_t d);
  // fp32 rows to the arranged order; and to += what is arranged in from.
  void (*arrange)(const float* from, float* to, int64_t d);
  void (*add_arranged)(const float* from, float* to, int64_t d);
};

struct StreamTables {
  StreamKernels<float> f32;
  StreamKernels<bf16> b16;
};
BK_DECLARE_KERNELS(StreamTables, stream_kernels)

}  // namespace birkhoff::kernels
