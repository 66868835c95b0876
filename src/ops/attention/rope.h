// Rotary position embedding (Su et al. 2021), with linear scaling, YaRN (Peng et al. 2023) and Llama 3's frequencies
// (spec: models.md A.2, A.4, D.3, D.4).
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/exec.h"
#include "core/view.h"

namespace birkhoff::ops {

enum class RopeLayout { interleaved, half_split };  // pairs (2i, 2i+1), or (i, i + dim/2)

struct RopeScaling {
  enum class Kind { none, linear, yarn, llama3 } kind = Kind::none;
  double factor = 1.0;
  int64_t original_max_position = 0;  // YaRN, Llama 3
  double beta_fast = 32, beta_slow = 1;
  double mscale = 1.0, mscale_all_dim = 0.0;         // YaRN: cos and sin are multiplied by g(mscale)/g(mscale_all_dim)
  double attention_factor = 0;                       // YaRN: or by this; 0: by that
  double low_freq_factor = 1, high_freq_factor = 4;  // Llama 3
};

// The ramp limits of YaRN, [low, high] (models.md D.4).
struct YarnRange {
  double low, high;
};
YarnRange yarn_range(int64_t dim, double theta, const RopeScaling& s);
// g(f, m) = 0.1 m ln f + 1 for f > 1, else 1. MLA multiplies its softmax scale by g(factor, mscale_all_dim)^2.
double yarn_mscale(double factor, double mscale);
// What the rotation multiplies lengths by, forward and backward; 1 without YaRN.
double rope_gain(const RopeScaling& s);

// Radians a position of every pair, [dim / 2]. Llama 3: a pair that turns at most low_freq_factor times within the
// original length is slowed by the factor, one that turns high_freq_factor times or more is kept, and between them the
// frequency is mixed linearly.
std::vector<double> rope_frequencies(int64_t dim, double theta, const RopeScaling& s);

// cos and sin of every (position, pair), [positions, dim/2] fp32 each, computed in double.
struct RopeTable {
  int64_t dim = 0;
  std::vector<float> cos, sin;
  int64_t positions() const { return dim ? static_cast<int64_t>(cos.size()) / (dim / 2) : 0; }
};
RopeTable make_rope_table(int64_t positions, int64_t dim, double theta, const RopeScaling& scaling);

// The channels of a row that are rotated: `heads` blocks of table.dim, the first at column first_col, each head_stride
// columns after the one before it.
struct RopeBlocks {
  int64_t first_col = 0, heads = 1, head_stride = 0;
};

// Rotates blocks of every row of x [T, *] in place. Row t stands at position pos[t] < table.positions(). inverse
// rotates by -pos (the backward).
void rope_apply(const Exec& exec, const RopeTable& table, RopeLayout layout, std::span<const int32_t> pos, Mat x,
                const RopeBlocks& blocks, bool inverse = false);

}  // namespace birkhoff::ops
