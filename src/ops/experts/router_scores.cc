#include "ops/experts/router_scores.h"

#include <algorithm>
#include <cmath>

namespace birkhoff::ops {
namespace {

float sigmoid(float x) { return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x)); }
float softplus(float x) { return std::max(x, 0.f) + std::log1p(std::exp(-std::abs(x))); }

}  // namespace

void router_scores(Scoring scoring, const float* z, int64_t n, float* s) {
  switch (scoring) {
    case Scoring::softmax: {
      const float top = *std::max_element(z, z + n);
      float sum = 0;
      for (int64_t i = 0; i < n; ++i) sum += s[i] = std::exp(z[i] - top);
      for (int64_t i = 0; i < n; ++i) s[i] /= sum;
      return;
    }
    case Scoring::sigmoid:
      for (int64_t i = 0; i < n; ++i) s[i] = sigmoid(z[i]);
      return;
    case Scoring::sqrtsoftplus:
      for (int64_t i = 0; i < n; ++i) s[i] = std::sqrt(softplus(z[i]));
      return;
  }
}

void router_scores_backward(Scoring scoring, const float* z, const float* s, const float* ds, int64_t n, float* dz,
                            bool accumulate) {
  float dot = 0;
  if (scoring == Scoring::softmax)
    for (int64_t i = 0; i < n; ++i) dot += ds[i] * s[i];
  for (int64_t i = 0; i < n; ++i) {
    float d = 0;
    if (scoring == Scoring::softmax)
      d = s[i] * (ds[i] - dot);
    else if (scoring == Scoring::sigmoid)
      d = ds[i] * s[i] * (1 - s[i]);
    else if (s[i] > 0)  // where the score underflowed to 0 its slope did too
      d = ds[i] * sigmoid(z[i]) / (2 * s[i]);
    dz[i] = accumulate ? dz[i] + d : d;
  }
}

}  // namespace birkhoff::ops
