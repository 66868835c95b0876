#include "ops/attention/rope.h"

#include <algorithm>
#include <cmath>

#include "kernels/attention/rope.h"

namespace birkhoff::ops {
namespace {
constexpr double kPi = 3.14159265358979323846;
}

YarnRange yarn_range(int64_t dim, double theta, const RopeScaling& s) {
  // The pair that turns r times within the original length.
  const auto pair_of_turns = [&](double turns) {
    return static_cast<double>(dim) * std::log(static_cast<double>(s.original_max_position) / (turns * 2 * kPi)) /
           (2 * std::log(theta));
  };
  const double low = std::max(std::floor(pair_of_turns(s.beta_fast)), 0.0);
  const double high = std::min(std::ceil(pair_of_turns(s.beta_slow)), static_cast<double>(dim - 1));
  return {low, low == high ? high + 0.001 : high};
}

double yarn_mscale(double factor, double mscale) { return factor > 1 ? 0.1 * mscale * std::log(factor) + 1 : 1.0; }

double rope_gain(const RopeScaling& s) {
  if (s.kind != RopeScaling::Kind::yarn) return 1.0;
  if (s.attention_factor != 0) return s.attention_factor;
  return yarn_mscale(s.factor, s.mscale) / yarn_mscale(s.factor, s.mscale_all_dim);
}

std::vector<double> rope_frequencies(int64_t dim, double theta, const RopeScaling& s) {
  using Kind = RopeScaling::Kind;
  BK_CHECK(dim >= 0 && dim % 2 == 0);
  BK_CHECK(theta > 1 && s.factor > 0);
  const bool yarn = s.kind == Kind::yarn, llama3 = s.kind == Kind::llama3;
  if (yarn || llama3) BK_CHECK_LT(0, s.original_max_position);
  const YarnRange range = yarn && dim ? yarn_range(dim, theta, s) : YarnRange{0, 1};
  std::vector<double> frequency(static_cast<size_t>(dim / 2));
  for (size_t i = 0; i < frequency.size(); ++i) {
    const double base = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(dim));
    const double slowed = base / s.factor;
    frequency[i] = s.kind == Kind::linear ? slowed : base;
    if (yarn) {
      const double ramp = std::clamp((static_cast<double>(i) - range.low) / (range.high - range.low), 0.0, 1.0);
      frequency[i] = slowed * ramp + base * (1 - ramp);
    }
    if (llama3) {
      const double turns = static_cast<double>(s.original_max_position) * base / (2 * kPi);
      const double kept = std::clamp((turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor), 0.0, 1.0);
      frequency[i] = kept * base + (1 - kept) * slowed;
    }
  }
  return frequency;
}

RopeTable make_rope_table(int64_t positions, int64_t dim, double theta, const RopeScaling& scaling) {
  BK_CHECK(positions >= 0);
  const std::vector<double> frequency = rope_frequencies(dim, theta, scaling);
  const double gain = rope_gain(scaling);
  RopeTable table;
  table.dim = dim;
  table.cos.reserve(static_cast<size_t>(positions) * frequency.size());
  table.sin.reserve(static_cast<size_t>(positions) * frequency.size());
  for (int64_t p = 0; p < positions; ++p) {
    for (double f : frequency) {
      table.cos.push_back(static_cast<float>(gain * std::cos(static_cast<double>(p) * f)));
      table.sin.push_back(static_cast<float>(gain * std::sin(static_cast<double>(p) * f)));
    }
  }
  return table;
}

void rope_apply(const Exec& exec, const RopeTable& table, RopeLayout layout, std::span<const int32_t> pos, Mat x,
                const RopeBlocks& blocks, bool inverse) {
  const int64_t first_col = blocks.first_col, heads = blocks.heads, head_stride = blocks.head_stride;
  BK_CHECK_EQ(static_cast<int64_t>(pos.size()), x.rows);
  BK_CHECK(first_col >= 0 && heads >= 0);
  if (heads > 0) BK_CHECK_LE(first_col + (heads - 1) * head_stride + table.dim, x.cols);
  if (heads > 1) BK_CHECK_LE(table.dim, head_stride);
  if (exec.dry() || heads == 0 || table.dim == 0) return;
  Exec::Span span(exec, Work::elementwise);
  for (int32_t p : pos) BK_CHECK(p >= 0 && p < table.positions());
  const auto& k = kernels::rope_kernels();
  const bool f32 = x.dtype == f32_t;
  const auto kernel = layout == RopeLayout::interleaved ? (f32 ? k.interleaved_f32 : k.interleaved_bf16)
                                                        : (f32 ? k.half_split_f32 : k.half_split_bf16);
  const Mat block = x.col_block(first_col, x.cols - first_col);
  const int64_t step = std::clamp<int64_t>(32768 / (heads * table.dim), 16, 2048);
  exec.parallel_for((x.rows + step - 1) / step, [&](int64_t task) {
    const int64_t first = task * step, rows = std::min(step, x.rows - first);
    kernel({table.cos.data(), table.sin.data(), pos.data() + first, block.row_block(first, rows).data, x.stride, rows,
            table.dim, heads, head_stride, inverse ? -1.f : 1.f});
  });
}

}  // namespace birkhoff::ops
