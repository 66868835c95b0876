// Blocks of GGUF files against ggml's values, bit for bit.
#include <cstring>

#include "core/bf16.h"
#include "ops/gemm/gemm.h"
#include "ops/gemm/stored_matrix.h"
#include "support/block_rows.h"

namespace birkhoff::test {
namespace {

using ops::StoredMatrix;
using ops::StoredType;

class StoredBlocks : public testing::TestWithParam<Isa> {
 protected:
  IsaScope scope{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Isas, StoredBlocks, testing::ValuesIn(machine_isas()),
                         [](const auto& isa) { return std::string(isa_name(isa.param)); });

// Every type that a file of vectors has, in the order of StoredType.
std::vector<BlockRows> block_vectors(const io::SafetensorsFile& f) {
  std::vector<BlockRows> all;
  for (int type = 0; type < kernels::kStoredTypes; ++type) {
    const std::string name = upper(ops::stored_format(static_cast<StoredType>(type)).name);
    const io::TensorEntry *blocks = f.find(name + ".blocks"), *values = f.find(name + ".values");
    if (!blocks || !values) continue;
    BlockRows& b = all.emplace_back();
    b.name = name;
    b.values.assign(values->as<float>(), values->as<float>() + values->size());
    b.view(static_cast<StoredType>(type), values->shape[0], values->shape[1], blocks->as<uint8_t>());
    EXPECT_EQ(static_cast<int64_t>(b.bytes.size()), blocks->size() + 1) << name;
  }
  return all;
}
std::vector<BlockRows> committed_vectors() {
  return block_vectors(io::SafetensorsFile(committed_dir() + "/gguf/blocks.safetensors"));
}

void expect_columns(const BlockRows& b, int64_t col, int64_t cols) {
  constexpr int64_t kBeside = 3;
  Owned out(b.rows(), cols + kBeside);
  for (int64_t i = 0; i < out.size(); ++i) out.set(i, -7.25);
  ops::expand_block(b.matrix, 0, col, Mat(out.view().f32(), f32_t, b.rows(), cols, cols + kBeside));
  for (int64_t r = 0; r < b.rows(); ++r) {
    for (int64_t c = 0; c < cols; ++c)
      ASSERT_EQ(std::memcmp(out.view().f32(r) + c, b.value(r, col + c), 4), 0)
          << b.name << " row " << r << " column " << col + c << ": " << out.at(r, c) << ", expected "
          << *b.value(r, col + c) << ", of columns from " << col << ", " << cols;
    for (int64_t c = cols; c < cols + kBeside; ++c) ASSERT_EQ(out.at(r, c), -7.25) << b.name << " writes beside";
  }
}

TEST_P(StoredBlocks, CommittedVectors) {
  const std::vector<BlockRows> all = committed_vectors();
  EXPECT_EQ(all.size(), 25u);
  for (const BlockRows& b : all) expect_columns(b, 0, b.cols());
}

TEST_P(StoredBlocks, FullVectors) {
  const std::vector<BlockRows> all = block_vectors(golden_file("gguf/blocks.safetensors"));
  EXPECT_GE(all.size(), 24u);
  for (const BlockRows& b : all) expect_columns(b, 0, b.cols());
}

// Tiles of 128 columns and whatever begins or ends inside a block.
TEST_P(StoredBlocks, AnyColumns) {
  for (const BlockRows& b : committed_vectors()) {
    for (int64_t c = 0; c < b.cols(); c += 128) expect_columns(b, c, 128);
    for (const auto& [col, cols] : std::vector<std::pair<int64_t, int64_t>>{{0, 1},
                                                                            {31, 1},
                                                                            {31, 2},
                                                                            {32, 31},
                                                                            {1, 511},
                                                                            {5, 11},
                                                                            {17, 300},
                                                                            {240, 32},
                                                                            {250, 12},
                                                                            {255, 257},
                                                                            {511, 1}})
      expect_columns(b, col, cols);
  }
}

// The formats that the package does not decode, from their definition: bit j of a block of 128 is d or -d; two bits an
// element in blocks of 64, less one.
TEST_P(StoredBlocks, OneAndTwoBits) {
  const Rng rng(3);
  for (const StoredType type : {StoredType::q1_0, StoredType::q2_0}) {
    const bool one = type == StoredType::q1_0;
    BlockRows b;
    b.name = ops::stored_format(type).name;
    const int64_t blocks = one ? 4 : 8;
    std::vector<uint8_t> bytes(static_cast<size_t>(18 * blocks));
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(rng.bits(i));
    for (int64_t k = 0; k < blocks; ++k) {
      uint8_t* block = bytes.data() + 18 * k;
      block[0] = 0, block[1] = static_cast<uint8_t>(k % 2 ? 0xb8 : 0x34);  // -0.5, 0.25
      const float d = k % 2 ? -0.5f : 0.25f;
      for (int64_t j = 0; j < 512 / blocks; ++j) {
        const int code = one ? block[2 + j / 8] >> j % 8 & 1 : block[2 + j / 4] >> j % 4 * 2 & 3;
        b.values.push_back(d * static_cast<float>(one ? 2 * code - 1 : code - 1));
      }
    }
    b.view(type, 1, 512, bytes.data());
    expect_columns(b, 0, 512);
    expect_columns(b, 33, 150);
  }
}

// e2m1 times 2^(e - 127) down to the smallest numbers, which are subnormal.
TEST_P(StoredBlocks, EveryScaleOfMxfp4) {
  for (int e = 0; e < 256; ++e) {
    BlockRows b;
    b.name = "e = " + std::to_string(e);
    std::vector<uint8_t> block(17);
    block[0] = static_cast<uint8_t>(e);
    for (size_t j = 0; j < 16; ++j) block[1 + j] = static_cast<uint8_t>(j | (15 - j) << 4);
    b.view(StoredType::mxfp4, 1, 32, block.data());
    Owned out(1, 32);
    ops::expand_rows(b.matrix, 0, 1, out);
    constexpr double kMagnitudes[8] = {0, .5, 1, 1.5, 2, 3, 4, 6};
    for (int j = 0; j < 32; ++j) {
      const int code = j < 16 ? j : 31 - j;
      const double want = std::ldexp(code & 8 ? -kMagnitudes[code & 7] : kMagnitudes[code & 7], e - 127);
      if (e == 255)
        EXPECT_TRUE(std::isnan(out.at(0, j)));
      else
        EXPECT_EQ(out.at(0, j), static_cast<double>(static_cast<float>(want))) << b.name << ", code " << code;
    }
  }
}

// Turned parts above others: numbers, and products with the matrix both ways round, are those of the transpose.
TEST_P(StoredBlocks, TurnedPartsAreTransposes) {
  const Exec exec(2);
  Arena arena{size_t{16} << 20};
  for (const BlockRows& b : committed_vectors()) {
    const int64_t rows = b.rows(), cols = b.cols();
    StoredMatrix m;
    for (int i = 0; i < 2; ++i) m.append(b.matrix.parts[0].tensor, true);
    Owned master(2 * cols, rows), got(cols, rows), half(cols, rows);
    for (int64_t r = 0; r < 2 * cols; ++r)
      for (int64_t c = 0; c < rows; ++c) master.set(r * rows + c, *b.value(c, r % cols));
    ops::expand_rows(m, cols / 2, cols, got);
    for (int64_t i = 0; i < half.size(); ++i) half.set(i, master.at(cols / 2 * rows + i));
    EXPECT_TRUE(got.same_bytes(half)) << b.name;
    for (const bool transposed : {true, false}) {
      const int64_t k = transposed ? rows : cols, n = transposed ? cols : rows;
      const CMat part = master.view().row_block(cols, cols);
      const ops::Packed packed = ops::Packed::take(arena, bf16_t, k, n);
      transposed ? ops::pack_transposed(exec, part, packed) : ops::pack(exec, part, packed);
      const Owned a = random(3, k, 5, 1.0, bf16_t);
      Owned y(3, n), want(3, n);
      ops::gemm(
          exec, a,
          transposed ? ops::Packed::transposed_rows(m, cols, cols, bf16_t) : ops::Packed::rows(m, cols, cols, bf16_t),
          y);
      ops::gemm(exec, a, packed, want);
      EXPECT_TRUE(y.same_bytes(want)) << b.name << (transposed ? " transposed" : "");
    }
  }
}

TEST_P(StoredBlocks, ProductsHaveTheBitsOfPackedWeights) {
  const Exec exec(2);
  Arena arena{size_t{16} << 20};
  for (const BlockRows& b : committed_vectors()) {
    StoredMatrix m = b.matrix;
    for (int i = 0; i < 9; ++i) m.append(b.matrix);
    Owned master(m.rows, m.cols);
    ops::expand(exec, m, master);
    for (const DType dtype : {f32_t, bf16_t}) {
      const ops::Packed packed = ops::Packed::take(arena, dtype, m.cols, m.rows);
      ops::pack_transposed(exec, master, packed);
      for (const int64_t rows : {1, 5}) {
        const Owned a = random(rows, m.cols, 5, 1.0, dtype);
        Owned got(rows, m.rows), want(rows, m.rows);
        ops::gemm(exec, a, ops::Packed::transposed_rows(m, 0, m.rows, dtype), got);
        ops::gemm(exec, a, packed, want);
        EXPECT_TRUE(got.same_bytes(want)) << b.name;
      }
    }
  }
}

}  // namespace
}  // namespace birkhoff::test
