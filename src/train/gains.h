// Gains of the residual maps (mhc.md 4): how much a chain of H_res amplifies what flows forward (row sums) and backward
// (column sums).
#pragma once
#include <cstdint>
#include <vector>

#include "core/view.h"
#include "train/metrics.h"

namespace birkhoff::train {

// Accumulates the H_res of one site after another, in site order.
class GainMeter {
 public:
  GainMeter(int64_t tokens, int64_t streams);
  // res [T, n*n] fp32, res[k*n + j] the weight of stream j in stream k of the output.
  void add_site(CMat res);

  // site: per site the mean over tokens of the largest |row or column sum|; max_*, min_*: largest and smallest |sum| of
  // the product of all sites, mean and extreme over tokens.
  GainRecord::Side forward() const;   // rows
  GainRecord::Side backward() const;  // columns

 private:
  GainRecord::Side side(bool rows) const;
  int64_t tokens_, n_;
  std::vector<double> composite_;  // [T, n, n], product of the sites so far, later sites on the left
  std::vector<double> site_rows_, site_cols_;
};

}  // namespace birkhoff::train
