// H_res as a mixture of permutation matrices, for 16 tokens at a time (structure of arrays, as in sinkhorn.h): doubly
// stochastic whatever the logits are, without iterations.
#pragma once
#include "kernels/isa.h"

namespace birkhoff::kernels {

inline constexpr int kMaxLiteStreams = 5;  // n! logits: 120; six streams would take 720

// One way from logits z [count][16] to a doubly stochastic matrix m [n*n][16], row-major.
struct MixtureForm {
  void (*forward)(const float* z, float* m, int n);
  // dz [count][16] from dm [n*n][16], replaying z; m as forward gives it.
  void (*backward)(const float* z, const float* dm, float* dz, float* m, int n);
};

struct PermutationKernels {
  // mHC-lite (arXiv 2601.05732): m = sum_p softmax(z)_p P_p, P_p[a][sigma_p(a)] = 1, over all n! permutations in
  // lexicographic order (the first is the identity). n <= kMaxLiteStreams.
  MixtureForm lite;
  // KromHC (arXiv 2601.21579): m = U_1 (x) ... (x) U_k for n = 2^k, U_i = a I + b swap with (a, b) = softmax(z[2i],
  // z[2i+1]); U_1 acts on the highest bit of the index. So m[r][c] depends on r xor c alone, and m is symmetric. n = 1
  // has no logits.
  MixtureForm kron;
};
BK_DECLARE_KERNELS(PermutationKernels, permutation_kernels)

}  // namespace birkhoff::kernels
