// Numbers to blocks: no worse than the package gguf, the same bits at every instruction set.
#include "ops/gemm/quantise.h"

#include <algorithm>
#include <limits>

#include "support/block_rows.h"

namespace birkhoff::test {
namespace {

using ops::stored_format;
using ops::StoredType;

constexpr StoredType kQuantised[] = {StoredType::q8_0, StoredType::q4_0, StoredType::q4_1,  StoredType::q5_0,
                                     StoredType::q5_1, StoredType::bf16, StoredType::mxfp4, StoredType::f16};

class Quantise : public testing::TestWithParam<Isa> {
 protected:
  IsaScope scope{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Isas, Quantise, testing::ValuesIn(machine_isas()),
                         [](const auto& isa) { return std::string(isa_name(isa.param)); });

std::vector<uint8_t> quantised(StoredType type, const float* in, int64_t rows, int64_t cols, int64_t stride) {
  const ops::StoredFormat f = stored_format(type);
  std::vector<uint8_t> out(static_cast<size_t>(rows * (cols / f.block_elements * f.block_bytes)) + 3, 0xa5);
  ops::quantise_rows(type, in, rows, cols, stride, out.data());
  for (int i = 0; i < 3; ++i, out.pop_back()) EXPECT_EQ(out.back(), 0xa5) << f.name << " writes beside";
  return out;
}
Owned decoded(StoredType type, int64_t rows, int64_t cols, const uint8_t* blocks) {
  BlockRows b;
  b.view(type, rows, cols, blocks);
  Owned out(rows, cols);
  ops::expand_rows(b.matrix, 0, rows, out);
  return out;
}
Owned there_and_back(StoredType type, const Owned& x) {
  const CMat v = x.view();
  return decoded(type, v.rows, v.cols, quantised(type, v.f32(0), v.rows, v.cols, v.cols).data());
}
double squared_error(const float* x, const Owned& y, int64_t first, int64_t count) {
  double s = 0;
  for (int64_t i = first; i < first + count; ++i) s += std::pow(static_cast<double>(x[i]) - y.at(i), 2);
  return s;
}
double relative_error(const Owned& x, const Owned& y) {
  double s = 0;
  for (int64_t i = 0; i < x.size(); ++i) s += x.at(i) * x.at(i);
  return std::sqrt(squared_error(x.view().f32(0), y, 0, x.size()) / s);
}

// Every block of 32; rounding of the sums that choose aside, 2^-20 of an error of 32 squares.
void expect_no_worse(const io::SafetensorsFile& f) {
  for (const StoredType type : kQuantised) {
    const std::string name = upper(stored_format(type).name);
    const io::TensorEntry *in = f.find(name + ".quant_in"), *blocks = f.find(name + ".quant_blocks");
    ASSERT_TRUE(in && blocks) << name;
    const int64_t rows = in->shape[0], cols = in->shape[1];
    const Owned theirs = decoded(type, rows, cols, blocks->as<uint8_t>());
    const Owned ours = decoded(type, rows, cols, quantised(type, in->as<float>(), rows, cols, cols).data());
    for (int64_t i = 0; i < rows * cols; i += 32)
      EXPECT_LE(squared_error(in->as<float>(), ours, i, 32),
                squared_error(in->as<float>(), theirs, i, 32) * (1 + 0x1p-20))
          << name << " row " << i / cols << " column " << i % cols;
  }
}
TEST_P(Quantise, NoWorseThanThePackage) {
  expect_no_worse(io::SafetensorsFile(committed_dir() + "/gguf/blocks.safetensors"));
}
TEST_P(Quantise, NoWorseThanThePackageOnTheFullSet) { expect_no_worse(golden_file("gguf/blocks.safetensors")); }

// Relative errors of llama.cpp's quantisers for normal numbers, less what trying scales gains.
TEST_P(Quantise, ErrorsOfNormalNumbers) {
  const Owned x = random(32, 4096, 9);
  for (const auto& [type, limit] : std::vector<std::pair<StoredType, double>>{{StoredType::q8_0, 0.0054},
                                                                              {StoredType::q4_0, 0.0820},
                                                                              {StoredType::q4_1, 0.0760},
                                                                              {StoredType::q5_0, 0.0410},
                                                                              {StoredType::q5_1, 0.0370},
                                                                              {StoredType::mxfp4, 0.1150},
                                                                              {StoredType::bf16, 0.0017},
                                                                              {StoredType::f16, 0.00021}})
    EXPECT_LT(relative_error(x, there_and_back(type, x)), limit) << stored_format(type).name;
}

// Zeros, subnormal results, outliers, constants, numbers beyond a half float's scale: 32 columns each.
Owned hard_rows() {
  Owned x = random(12, 64, 4);
  const double scales[12] = {0, 1e-3, 1e-6, 1e-9, 1e-30, 1e-40, 1, 1, 1e5, 1e9, 1e37, 1};
  for (int64_t r = 0; r < 12; ++r)
    for (int64_t c = 0; c < 64; ++c) x.set(r * 64 + c, scales[r] * x.at(r, c));
  x.set(6 * 64 + 5, 300), x.set(6 * 64 + 40, -2e4);
  for (int64_t c = 0; c < 64; ++c)
    x.set(7 * 64 + c, c < 32 ? 0.1 : -0.1), x.set(11 * 64 + c, std::abs(x.at(11, c)) + 3);
  return x;
}
TEST_P(Quantise, HardRows) {
  const Owned x = hard_rows();
  for (const StoredType type : kQuantised) {
    const std::string name = stored_format(type).name;
    const Owned y = there_and_back(type, x);
    // Half of the smallest scale times the codes from one end to the other; half of the smallest step.
    const double coarse = type == StoredType::mxfp4 ? 0x1p-129 : type == StoredType::bf16 ? 0 : 0x1p-25 * 31;
    const bool offset = type == StoredType::q4_1 || type == StoredType::q5_1;
    for (int64_t r = 0; r < 12; ++r) {
      double largest = 0, error = 0;
      for (int64_t c = 0; c < 64; ++c) {
        if (type == StoredType::f16 && std::abs(x.at(r, c)) >= 65520) continue;
        ASSERT_TRUE(std::isfinite(y.at(r, c))) << name << " row " << r;
        largest = std::max(largest, std::abs(x.at(r, c)));
        error = std::max(error, std::abs(x.at(r, c) - y.at(r, c)));
      }
      EXPECT_TRUE(r > 0 || error == 0) << name;
      // No number is off by more than itself, and one that the format reaches not by more than half a step of 4 (that
      // of mxfp4 below its clipped largest), a quarter.
      const bool reached =
          r < 8 || r == 11 || type == StoredType::mxfp4 || type == StoredType::bf16 || (r == 8 && !offset);
      EXPECT_LE(error, reached ? std::min(largest, 0.26 * largest + coarse) : largest) << name << " row " << r;
    }
  }
}

// A scale below the smallest half float is that one.
TEST_P(Quantise, SmallestScale) {
  const Owned x = random(1, 64, 4, 1e-6);
  const Owned y = there_and_back(StoredType::q8_0, x);
  for (int64_t c = 0; c < 64; ++c) EXPECT_LE(std::abs(x.at(0, c) - y.at(0, c)), 0x1p-25);
}

TEST_P(Quantise, SameBitsAsPlainCode) {
  const Owned x = hard_rows();
  const Owned more = random(50, 64, 8);
  for (const StoredType type : kQuantised) {
    for (const Owned* m : {&x, &more}) {
      const CMat v = m->view();
      const auto blocks = [&](Isa isa) {
        limit_isa(isa);
        return quantised(type, v.f32(0), v.rows, 64, 64);
      };
      EXPECT_EQ(blocks(GetParam()), blocks(Isa::scalar)) << stored_format(type).name;
    }
  }
}

// Numbers that a block holds exactly come back: its largest code is one of those that scales are tried for.
TEST_P(Quantise, BlocksComeBack) {
  const Rng rng(6);
  for (const auto& [type, low, high] : std::vector<std::tuple<StoredType, int, int>>{{StoredType::q8_0, -126, 127},
                                                                                     {StoredType::q4_0, -8, 7},
                                                                                     {StoredType::q4_1, 0, 15},
                                                                                     {StoredType::q5_0, -16, 15},
                                                                                     {StoredType::q5_1, 0, 31}}) {
    Owned x(4, 64);
    for (int64_t i = 0; i < x.size(); ++i) {
      const int span = high - low + 1,
                q = i % 32 == 7 ? low
                    : i % 32 == 30
                        ? high
                        : low + static_cast<int>(rng.bits(static_cast<uint64_t>(i)) % static_cast<uint64_t>(span));
      x.set(i, (i / 64 % 2 ? -0.375 : 0.25) * (low == 0 ? -1 : 1) * q + (low == 0 ? 1.5 : 0));
    }
    EXPECT_LE(relative_error(x, there_and_back(type, x)), low == 0 ? 1e-7 : 0) << stored_format(type).name;
  }
}

TEST_P(Quantise, RowsApart) {
  const Owned x = random(3, 96, 2);
  for (const StoredType type : kQuantised) {
    Owned part(3, 64);
    for (int64_t r = 0; r < 3; ++r)
      for (int64_t c = 0; c < 64; ++c) part.set(r * 64 + c, x.at(r, c));
    EXPECT_EQ(quantised(type, x.view().f32(0), 3, 64, 96), quantised(type, part.view().f32(0), 3, 64, 64));
  }
}

TEST_P(Quantise, NumbersThatAreNotFinite) {
  for (const double bad : {std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(),
                           std::numeric_limits<double>::quiet_NaN()}) {
    Owned x = random(1, 96, 2);
    x.set(45, bad);
    for (const StoredType type : kQuantised) {
      const Owned y = there_and_back(type, x);
      const bool alone = stored_format(type).block_elements == 1;
      for (int64_t c = 0; c < 96; ++c) {
        if (c == 45 && alone)
          EXPECT_TRUE(std::isnan(bad) ? std::isnan(y.at(0, c)) : y.at(0, c) == bad) << stored_format(type).name;
        else
          EXPECT_EQ(std::isnan(y.at(0, c)), !alone && c / 32 == 1) << stored_format(type).name << " " << c;
      }
    }
  }
}

TEST(QuantiseContract, RefusesWhatItCannot) {
  const Owned x = random(2, 64, 1);
  std::vector<uint8_t> out(1000);
  const float* in = x.view().f32(0);
  EXPECT_THROW(ops::quantise_rows(StoredType::q4_k, in, 1, 64, 64, out.data()), ContractViolation);
  EXPECT_THROW(ops::quantise_rows(StoredType::q8_0, in, 1, 48, 64, out.data()), ContractViolation);
  EXPECT_THROW(ops::quantise_rows(StoredType::q8_0, in, 2, 64, 32, out.data()), ContractViolation);
}

}  // namespace
}  // namespace birkhoff::test
