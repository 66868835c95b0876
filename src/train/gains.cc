#include "train/gains.h"

#include <algorithm>
#include <cmath>

namespace birkhoff::train {
namespace {

// |sum| of row or column i of an n x n matrix.
double line_sum(const double* m, int64_t n, int64_t i, bool row) {
  double s = 0;
  for (int64_t j = 0; j < n; ++j) s += row ? m[i * n + j] : m[j * n + i];
  return std::abs(s);
}

double largest_line(const double* m, int64_t n, bool rows) {
  double best = 0;
  for (int64_t i = 0; i < n; ++i) best = std::max(best, line_sum(m, n, i, rows));
  return best;
}

double smallest_line(const double* m, int64_t n, bool rows) {
  double best = line_sum(m, n, 0, rows);
  for (int64_t i = 1; i < n; ++i) best = std::min(best, line_sum(m, n, i, rows));
  return best;
}

}  // namespace

GainMeter::GainMeter(int64_t tokens, int64_t streams)
    : tokens_(tokens), n_(streams), composite_(static_cast<size_t>(tokens * streams * streams), 0.0) {
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t i = 0; i < streams; ++i) composite_[static_cast<size_t>((t * streams + i) * streams + i)] = 1.0;
}

void GainMeter::add_site(CMat res) {
  check_shape(res, tokens_, n_ * n_);
  std::vector<double> site(static_cast<size_t>(n_ * n_)), product(site.size());
  double rows = 0, cols = 0;
  for (int64_t t = 0; t < tokens_; ++t) {
    const float* r = res.f32(t);
    std::copy(r, r + n_ * n_, site.begin());
    rows += largest_line(site.data(), n_, true);
    cols += largest_line(site.data(), n_, false);
    double* c = composite_.data() + t * n_ * n_;
    for (int64_t i = 0; i < n_; ++i)
      for (int64_t j = 0; j < n_; ++j) {
        double s = 0;
        for (int64_t k = 0; k < n_; ++k) s += site[static_cast<size_t>(i * n_ + k)] * c[k * n_ + j];
        product[static_cast<size_t>(i * n_ + j)] = s;
      }
    std::copy(product.begin(), product.end(), c);
  }
  site_rows_.push_back(rows / static_cast<double>(tokens_));
  site_cols_.push_back(cols / static_cast<double>(tokens_));
}

GainRecord::Side GainMeter::side(bool rows) const {
  GainRecord::Side s;
  s.site = rows ? site_rows_ : site_cols_;
  s.max_mean = s.max_max = s.min_mean = 0;
  s.min_min = tokens_ ? INFINITY : 1;
  for (int64_t t = 0; t < tokens_; ++t) {
    const double* c = composite_.data() + t * n_ * n_;
    const double high = largest_line(c, n_, rows), low = smallest_line(c, n_, rows);
    s.max_mean += high / static_cast<double>(tokens_);
    s.min_mean += low / static_cast<double>(tokens_);
    s.max_max = std::max(s.max_max, high);
    s.min_min = std::min(s.min_min, low);
  }
  return s;
}

GainRecord::Side GainMeter::forward() const { return side(true); }
GainRecord::Side GainMeter::backward() const { return side(false); }

}  // namespace birkhoff::train
