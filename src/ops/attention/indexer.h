// The lightning indexer (models.md F.1, F.2; V4: G.5): a cheap score of every visible key decides which ones attention
// sees.
//   I[t, s] = sum_h w[t, h] ReLU(q[t, h] . k[s])
// The constants of the score (dim^-1/2, heads^-1/2) are in w. q and k are both fp32 or both bf16, w fp32, as are I and
// all sums. Results do not depend on the number of threads nor on the other rows
// of the call.
#pragma once
#include <cstdint>
#include <span>

#include "core/arena.h"
#include "core/exec.h"
#include "core/view.h"
#include "ops/attention/key_rows.h"

namespace birkhoff::ops {

struct IndexerShape {
  int64_t heads = 0, dim = 0;
};
struct IndexerTensors {
  CMat q;     // [T, heads*dim]
  KeyRows k;  // [M, dim]
  CMat w;     // [T, heads]
};

// keys [T, S]: the min(S, end[t] - first[t]) keys s in [first[t], end[t]) with the largest scores, in ascending order,
// then -1. Of equal scores the lower s wins; NaN counts as the smallest. 0 <= first[t] <= end[t] <= M. Scores are never
// held for all keys at once.
void indexer_select(const Exec& exec, const IndexerShape& s, const IndexerTensors& in, std::span<const int32_t> first,
                    std::span<const int32_t> end, IndexMat keys, Arena& scratch);

// keys [T, S]: all of [first[t], end[t]), then -1. S must hold the longest.
void list_visible(const Exec& exec, std::span<const int32_t> first, std::span<const int32_t> end, IndexMat keys);

struct IndexerGradients {
  Mat dq, dk, dw;
};

// Returns sum_t KL(p_t || softmax of I[t, .] over the keys listed in row t); p [T, S] fp32, each row with a sum of 1
// over its list. Rows without keys add nothing. d assigned: `scale` times the gradient (1 / tokens of
// the step, times the coefficient).
double indexer_kl(const Exec& exec, const IndexerShape& s, const IndexerTensors& in, CIndexMat keys, CMat p,
                  float scale, const IndexerGradients& d, Arena& scratch);

// How good a selection was, over the rows that had more keys to see than they could select.
struct SelectionQuality {
  double covered = 0, best = 0;  // mass of the selected keys; of as many keys with the largest mass
  int64_t shared = 0, keys = 0;  // selected keys that are among those; selected keys
  double coverage() const { return best > 0 ? covered / best : 1; }
  double recall() const { return keys ? static_cast<double>(shared) / static_cast<double>(keys) : 1; }
  void operator+=(const SelectionQuality& q) {
    covered += q.covered, best += q.best, shared += q.shared, keys += q.keys;
  }
};
// p [T, V] fp32: mass of the keys listed in row t of visible [T, V]; selected [T, S]: some of them, ascending. Of equal
// masses the selected count as the best.
SelectionQuality selection_quality(const Exec& exec, CIndexMat visible, CMat p, CIndexMat selected);

}  // namespace birkhoff::ops
