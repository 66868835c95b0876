// Products with quantised weights against sums over what the blocks say, in double precision.
#include <algorithm>
#include <limits>

#include "core/error.h"
#include "ops/gemm/gemm.h"
#include "ops/gemm/quantise.h"
#include "support/block_rows.h"

namespace birkhoff::test {
namespace {

using ops::QuantMatrix;
using ops::QuantType;
using ops::StoredType;

class QuantProducts : public testing::TestWithParam<Isa> {
 protected:
  IsaScope scope{GetParam()};
  const Exec exec{3};
};
INSTANTIATE_TEST_SUITE_P(Isas, QuantProducts, testing::ValuesIn(machine_isas()),
                         [](const auto& isa) { return std::string(isa_name(isa.param)); });

constexpr QuantType kTypes[] = {QuantType::q4, QuantType::q8, QuantType::q4_1, QuantType::fp4};
StoredType blocks_of(QuantType t) {
  constexpr StoredType kBlocks[] = {StoredType::q4_0, StoredType::q8_0, StoredType::q4_1, StoredType::mxfp4};
  return kBlocks[static_cast<int>(t)];
}

ops::StoredMatrix stored(const Owned& w) {
  const CMat v = w.view();
  ops::StoredTensor t;
  t.data = static_cast<const uint8_t*>(v.data);
  t.rows = v.rows, t.cols = v.cols;
  t.type = v.dtype == DType::f32 ? StoredType::f32 : StoredType::bf16;
  ops::StoredMatrix m;
  m.append(t);
  return m;
}

// A quantised matrix and its memory.
struct Quantised {
  std::vector<uint8_t> bytes;
  QuantMatrix m;
  Quantised(const Exec& exec, QuantType type, const ops::QuantSource& s)
      : bytes(static_cast<size_t>(QuantMatrix::bytes(type, s.rows(), s.cols())) + 64) {
    const auto at =
        (reinterpret_cast<uintptr_t>(bytes.data()) + 63) / 64 * 64 - reinterpret_cast<uintptr_t>(bytes.data());
    m = {bytes.data() + at, type, s.rows(), s.cols()};
    ops::quantise(exec, s, m);
  }
  Quantised(const Exec& exec, QuantType type, const ops::StoredMatrix& w)
      : Quantised(exec, type, {&w, 0, w.rows, false}) {}
  ops::Packed packed() const { return ops::Packed::of(m, DType::f32); }
};

// What blocks of `type` hold of w.
std::vector<double> rounded(QuantType type, const Owned& w) {
  const CMat v = w.view();
  ops::StoredTensor t;
  t.rows = v.rows, t.cols = v.cols, t.type = blocks_of(type);
  std::vector<uint8_t> bytes(static_cast<size_t>(v.rows * t.row_bytes()));
  ops::quantise_rows(t.type, v.f32(), v.rows, v.cols, v.cols, bytes.data());
  t.data = bytes.data();
  ops::StoredMatrix m;
  m.append(t);
  Owned out(v.rows, v.cols);
  ops::expand_rows(m, 0, v.rows, out);
  return out.values();
}

// Activations as they are multiplied: whole numbers up to 127 times a scale for every 32.
std::vector<double> rounded_activations(const Owned& x) {
  std::vector<double> v = x.values();
  for (size_t b = 0; b < v.size(); b += 32) {
    float most = 0;
    for (size_t i = b; i < b + 32; ++i) most = std::max(most, std::abs(static_cast<float>(v[i])));
    const float scale = most / 127.f, inverse = most > 0 ? 127.f / most : 0.f;
    for (size_t i = b; i < b + 32; ++i)
      v[i] = static_cast<double>(scale) * std::nearbyint(static_cast<float>(v[i]) * inverse);
  }
  return v;
}

std::vector<double> product(const std::vector<double>& x, const std::vector<double>& w, int64_t k) {
  const size_t K = static_cast<size_t>(k), T = x.size() / K, N = w.size() / K;
  std::vector<double> y(T * N);
  for (size_t t = 0; t < T; ++t)
    for (size_t n = 0; n < N; ++n)
      for (size_t i = 0; i < K; ++i) y[t * N + n] += x[t * K + i] * w[n * K + i];
  return y;
}

// Rows of every tail of the kernels, columns of a part of a panel, one block and many, both types of activations.
TEST_P(QuantProducts, AreSumsOfWhatTheBlocksHold) {
  for (const QuantType type : kTypes)
    for (const auto& [rows, n, k] :
         {std::tuple<int64_t, int64_t, int64_t>{1, 16, 32}, {1, 70, 416}, {7, 33, 64}, {23, 48, 160}, {41, 5, 1056}})
      for (const DType dtype : {DType::f32, DType::bf16}) {
        const Owned w = random(n, k, 1, 0.05), x = random(rows, k, 2, 3.0, dtype);
        const Quantised q(exec, type, stored(w));
        Owned y(rows, n);
        ops::gemm(exec, x, q.packed(), y);
        const auto xs = rounded_activations(x), ws = rounded(type, w);
        expect_close(y.values(), product(xs, ws, k), sum_tolerance(k / 32, largest(xs) * largest(ws) * 32),
                     std::string(ops::stored_format(blocks_of(type)).name) + " " + std::to_string(rows) + " x " +
                         std::to_string(n) + " x " + std::to_string(k));
      }
}

TEST_P(QuantProducts, AddAndRoundWhereTheyAreStored) {
  const Owned w = random(40, 96, 3), x = random(5, 96, 4);
  const Quantised q(exec, QuantType::q4, stored(w));
  Owned y(5, 40), sum = random(5, 40, 5), rounded_y(5, 40, DType::bf16);
  const Owned before = sum;
  ops::gemm(exec, x, q.packed(), y);
  ops::gemm(exec, x, q.packed(), sum, ops::Store::accumulate);
  ops::gemm(exec, x, q.packed(), rounded_y);
  for (int64_t i = 0; i < y.size(); ++i) {
    EXPECT_EQ(static_cast<float>(sum.at(i)), static_cast<float>(before.at(i)) + static_cast<float>(y.at(i)));
    EXPECT_EQ(rounded_y.at(i), to_float(to_bf16(static_cast<float>(y.at(i)))));
  }
}

// Any rows together, in any number of threads, with the bits of each alone.
TEST_P(QuantProducts, ARowDoesNotDependOnTheOthers) {
  const int64_t k = 96, n = 37;
  const Owned w = random(n, k, 6), x = random(67, k, 7);
  for (const QuantType type : kTypes) {
    const Quantised q(exec, type, stored(w));
    Owned alone(67, n);
    for (int64_t r = 0; r < 67; ++r)
      ops::gemm(exec, x.view().row_block(r, 1), q.packed(), alone.view().row_block(r, 1));
    const Exec one(1);
    for (const int64_t rows : {2, 3, 5, 8, 9, 15, 16, 24, 31, 67})
      for (const Exec* some : {&one, &exec}) {
        Owned y(rows, n);
        ops::gemm(*some, x.view().row_block(67 - rows, rows), q.packed(), y);
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t c = 0; c < n; ++c)
            ASSERT_EQ(y.at(r, c), alone.at(67 - rows + r, c)) << rows << " rows, row " << r << ", column " << c;
      }
  }
}

TEST_P(QuantProducts, GroupsHaveWeightsOfTheirOwn) {
  const int64_t k = 64, n = 24;
  const Owned a = random(n, k, 8), b = random(n, k, 9), x = random(9, k, 10);
  const Quantised qa(exec, QuantType::q8, stored(a)), qb(exec, QuantType::q8, stored(b));
  Owned y(9, n), want(9, n);
  const int32_t offsets[] = {0, 2, 2, 9};
  const ops::Packed of[] = {qa.packed(), qa.packed(), qb.packed()};
  ops::grouped_gemm(exec, x, offsets, of, y);
  ops::gemm(exec, x.view().row_block(0, 2), qa.packed(), want.view().row_block(0, 2));
  ops::gemm(exec, x.view().row_block(2, 7), qb.packed(), want.view().row_block(2, 7));
  EXPECT_TRUE(y.same_bytes(want));
}

// As the experts of a file that keeps some of them in another format.
TEST_P(QuantProducts, GroupsBesideOthersThatAreNotQuantised) {
  const int64_t k = 64, n = 24;
  const Owned a = random(n, k, 8), b = random(n, k, 9), x = random(9, k, 10);
  const Quantised q(exec, QuantType::q4, stored(a));
  const ops::StoredMatrix file = stored(b);
  const ops::Packed plain = ops::Packed::transposed_rows(file, 0, n, DType::f32);
  Owned want(9, n);
  ops::gemm(exec, x.view().row_block(0, 4), q.packed(), want.view().row_block(0, 4));
  ops::gemm(exec, x.view().row_block(4, 5), plain, want.view().row_block(4, 5));
  const int32_t offsets[] = {0, 4, 4, 9}, later[] = {0, 0, 4, 9};
  for (const auto& [places, of] : {std::pair{std::span(offsets), std::vector{q.packed(), q.packed(), plain}},
                                   {std::span(later), std::vector{plain, q.packed(), plain}}}) {
    Owned y(9, n);
    ops::grouped_gemm(exec, x, places, of, y);
    EXPECT_TRUE(y.same_bytes(want));
  }
}

// A number that is not finite is seen in every output of its row, and in no other.
TEST_P(QuantProducts, WhatIsNotFiniteStays) {
  const Owned w = random(20, 64, 11);
  const Quantised q(exec, QuantType::q4, stored(w));
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    Owned x = random(3, 64, 12), y(3, 20);
    x.set(64 + 37, bad);
    ops::gemm(exec, x, q.packed(), y);
    for (int64_t i = 0; i < 60; ++i) EXPECT_EQ(std::isfinite(y.at(i)), i / 20 != 1) << i;
  }
}

TEST_P(QuantProducts, BlocksOfAFileAreTakenAsTheyAre) {
  const int64_t n = 19, k = 96;
  const Owned w = random(n, k, 13, 0.1), x = random(4, k, 14);
  for (const QuantType from : kTypes)
    for (const QuantType to : kTypes) {
      if (from != to && (from != QuantType::q4 || to != QuantType::q8)) continue;
      std::vector<uint8_t> bytes(static_cast<size_t>(n * k / 32 * 34));
      ops::quantise_rows(blocks_of(from), w.view().row_block(0, n).f32(), n, k, k, bytes.data());
      BlockRows file;
      file.view(blocks_of(from), n, k, bytes.data());
      const ops::QuantSource below{&file.matrix, 3, n - 3, false};
      EXPECT_EQ(ops::lossless_type(below), from);
      const Quantised q(exec, to, below);
      Owned y(4, n - 3);
      ops::gemm(exec, x, q.packed(), y);
      auto ws = rounded(from, w);
      ws.erase(ws.begin(), ws.begin() + 3 * k);
      const auto xs = rounded_activations(x);
      expect_close(y.values(), product(xs, ws, k), sum_tolerance(k / 32, largest(xs) * largest(ws) * 32), "blocks");
    }
}

TEST_P(QuantProducts, RowsOfATransposeAreColumns) {
  const int64_t rows = 64, cols = 40;
  const Owned w = random(rows + 2, cols, 15);
  Owned turned(cols, rows);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) turned.set(c * rows + r, w.at(r + 2, c));
  const ops::StoredMatrix file = stored(w), turned_file = stored(turned);
  const Quantised a(exec, QuantType::q8, {&file, 2, rows, true}), b(exec, QuantType::q8, turned_file);
  const auto bytes = static_cast<size_t>(QuantMatrix::bytes(QuantType::q8, cols, rows));
  EXPECT_TRUE(std::equal(a.m.data, a.m.data + bytes, b.m.data));
}

// Keys of latent attention stand turned in GGUF files: what they hold along their own rows is taken as it is, rows of
// the matrix are rounded.
TEST_P(QuantProducts, TurnedBlocksAreTakenAlongTheirRows) {
  const int64_t n = 64, k = 96;
  const Owned w = random(n, k, 19, 0.1);
  std::vector<uint8_t> bytes(static_cast<size_t>(n * k / 32 * 18));
  ops::quantise_rows(StoredType::q4_0, w.view().f32(), n, k, k, bytes.data());
  BlockRows file;
  file.view(StoredType::q4_0, n, k, bytes.data());
  ops::StoredMatrix turned;  // [k, n] twice
  for (int i = 0; i < 2; ++i) turned.append(file.matrix.parts[0].tensor, true);
  const ops::QuantSource below{&turned, k, k, true}, across{&turned, 3, 40, false};
  EXPECT_EQ(ops::lossless_type(below), QuantType::q4);
  EXPECT_EQ(ops::lossless_type({&turned, 0, 2 * k, false}), std::nullopt);
  EXPECT_TRUE(ops::lies_across(across) && !ops::lies_across(below) && ops::has_quant_blocks(turned));
  const Quantised a(exec, QuantType::q4, below), b(exec, QuantType::q4, file.matrix);
  const auto size = static_cast<size_t>(QuantMatrix::bytes(QuantType::q4, n, k));
  EXPECT_TRUE(std::equal(a.m.data, a.m.data + size, b.m.data));
  Owned rows(across.count, n);
  ops::expand_rows(turned, across.first, across.count, rows);
  const Quantised c(exec, QuantType::q8, across), d(exec, QuantType::q8, stored(rows));
  const auto all = static_cast<size_t>(QuantMatrix::bytes(QuantType::q8, across.count, n));
  EXPECT_TRUE(std::equal(c.m.data, c.m.data + all, d.m.data));
}

// FP4 of safetensors, neighbours in a byte and scales in a tensor of their own, makes the panels of MXFP4; with scales
// of another kind it is no block.
TEST_P(QuantProducts, Fp4OfTwoTensorsIsMxfp4) {
  const int64_t n = 21, k = 96, blocks = k / 32;
  const Owned w = random(n, k, 20, 0.1);
  std::vector<uint8_t> bytes(static_cast<size_t>(n * blocks * 17)), codes(static_cast<size_t>(n * k / 2)),
      scales(static_cast<size_t>(n * blocks));
  ops::quantise_rows(StoredType::mxfp4, w.view().f32(), n, k, k, bytes.data());
  for (size_t b = 0; b < scales.size(); ++b) {
    const uint8_t* block = bytes.data() + 17 * b;
    scales[b] = block[0];
    const auto code = [&](size_t i) { return i < 16 ? block[1 + i] & 15 : block[1 + i - 16] >> 4; };
    for (size_t i = 0; i < 16; ++i) codes[16 * b + i] = static_cast<uint8_t>(code(2 * i) | code(2 * i + 1) << 4);
  }
  BlockRows file;
  file.view(StoredType::mxfp4, n, k, bytes.data());
  ops::StoredTensor t;
  t.data = codes.data(), t.scale = scales.data(), t.rows = n, t.cols = k, t.block_cols = 32;
  t.type = StoredType::fp4, t.scale_type = ops::ScaleType::f8_e8m0;
  ops::StoredMatrix two;
  two.append(t);
  EXPECT_EQ(ops::lossless_type({&two, 0, n, false}), QuantType::fp4);
  const Quantised a(exec, QuantType::fp4, two), b(exec, QuantType::fp4, file.matrix);
  const auto size = static_cast<size_t>(QuantMatrix::bytes(QuantType::fp4, n, k));
  EXPECT_TRUE(std::equal(a.m.data, a.m.data + size, b.m.data));
  ops::StoredMatrix wide;
  t.block_cols = 96;
  wide.append(t);
  EXPECT_FALSE(ops::has_quant_blocks(wide));
}

// The smallest and largest scales of FP4, which are no halves, and 2^-127, which is no normal number.
TEST_P(QuantProducts, Fp4ScalesOfEverySize) {
  for (const int scale : {0, 1, 2, 100, 230}) {
    std::vector<uint8_t> block(17, 0x71);  // 0.5 in the low halves, 6 in the high ones
    block[0] = static_cast<uint8_t>(scale);
    BlockRows file;
    file.view(StoredType::mxfp4, 1, 32, block.data());
    const Quantised q(exec, QuantType::fp4, file.matrix);
    Owned x(1, 32), y(1, 1);
    for (int i = 0; i < 32; ++i) x.set(i, i == 3 || i == 20 ? 127.0 : 0.0);
    ops::gemm(exec, x, q.packed(), y);
    EXPECT_EQ(y.at(0), std::ldexp(6.5 * 127, scale - 127)) << scale;
  }
}

// Groups may have weights of several types: a row of activations is the same to all.
TEST_P(QuantProducts, GroupsMayDifferInType) {
  const int64_t k = 96, n = 24;
  const Owned w = random(n, k, 21), x = random(4, k, 22);
  std::vector<Quantised> of;
  of.reserve(4);
  for (const QuantType type : kTypes) of.emplace_back(exec, type, stored(w));
  const int32_t offsets[] = {0, 1, 2, 3, 4};
  std::vector<ops::Packed> packed;
  for (const Quantised& q : of) packed.push_back(q.packed());
  Owned y(4, n), want(4, n);
  ops::grouped_gemm(exec, x, offsets, packed, y);
  for (int64_t i = 0; i < 4; ++i)
    ops::gemm(exec, x.view().row_block(i, 1), packed[static_cast<size_t>(i)], want.view().row_block(i, 1));
  EXPECT_TRUE(y.same_bytes(want));
}

TEST(QuantMatrices, WeightsThatAreNotFiniteAreNamed) {
  const Exec exec(2);
  Owned w = random(40, 64, 16);
  w.set(33 * 64 + 5, std::numeric_limits<double>::quiet_NaN());
  try {
    Quantised(exec, QuantType::q4, stored(w));
    FAIL() << "taken";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("row 33, column 5 is nan"), std::string::npos) << e.what();
  }
}

// The vector and the tile form add the same numbers in the same order.
TEST(QuantMatrices, TilesAndVectorsAgreeBitForBit) {
  const std::vector<Isa> isas = machine_isas();
  if (isas.back() != Isa::amx) GTEST_SKIP() << "no tiles here";
  const Exec exec(2);
  const Owned w = random(48, 320, 17), x = random(53, 320, 18);
  for (const QuantType type : kTypes) {
    const Quantised q(exec, type, stored(w));
    Owned tiles(53, 48), vectors(53, 48);
    ops::gemm(exec, x, q.packed(), tiles);
    IsaScope scope(Isa::avx512);
    ops::gemm(exec, x, q.packed(), vectors);
    EXPECT_TRUE(tiles.same_bytes(vectors));
  }
}

}  // namespace
}  // namespace birkhoff::test
