// Compressed entries of DeepSeek-V4's attention: a softmax over a few tokens, separately in every channel.
#pragma once
#include <cstdint>

#include "kernels/isa.h"

namespace birkhoff::kernels {

// Consecutive rows that take part in one entry, all with the same channels. Rows of k and z are `stride` floats apart.
struct CompressorRun {
  const float* k = nullptr;
  const float* z = nullptr;
  const float* ape = nullptr;  // added to z; ape_stride apart
  int64_t stride = 0, ape_stride = 0, rows = 0;
};
struct CompressorRunGradient {
  float* dk = nullptr;  // assigned
  float* dz = nullptr;  // assigned
  int64_t stride = 0;
};

struct CompressorKernels {
  // entry[c] = sum over the rows of both runs of softmax(z + ape)[row, c] k[row, c]. At least one row in all.
  void (*forward)(const CompressorRun (&runs)[2], float* entry, int64_t dim);
  // dk = p d_entry, dz = p (k - entry) d_entry; the entry is found again.
  void (*backward)(const CompressorRun (&runs)[2], const float* d_entry, const CompressorRunGradient (&grads)[2],
                   int64_t dim);
};
BK_DECLARE_KERNELS(CompressorKernels, compressor_kernels)

}  // namespace birkhoff::kernels
