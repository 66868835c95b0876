// Weights in the formats of model files: every code against its definition, and products with the bits of the packed
// path.
#include "ops/gemm/stored_matrix.h"

#include "ops/gemm/gemm.h"
#include "ops/rows/embedding.h"
#include "support/matrix.h"
#include "support/stored.h"

namespace birkhoff::test {
namespace {

using ops::Packed;
using ops::ScaleType;
using ops::StoredMatrix;
using ops::StoredTensor;
using ops::StoredType;

size_t u(int64_t i) { return static_cast<size_t>(i); }

class Stored : public testing::TestWithParam<Isa> {
 protected:
  IsaScope scope{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Isas, Stored, testing::ValuesIn(machine_isas()),
                         [](const auto& isa) { return std::string(isa_name(isa.param)); });

StoredMatrix matrix_of(std::initializer_list<const StoredCase*> parts) {
  StoredMatrix m;
  for (const StoredCase* p : parts) m.append(p->tensor());
  return m;
}

// The values of stacked parts as an fp32 master.
Owned master_of(std::initializer_list<const StoredCase*> parts) {
  int64_t rows = 0, cols = 0;
  for (const StoredCase* p : parts) rows += p->tensor().rows, cols = p->tensor().cols;
  Owned m(rows, cols);
  int64_t i = 0;
  for (const StoredCase* p : parts)
    for (int64_t r = 0; r < p->tensor().rows; ++r)
      for (int64_t c = 0; c < cols; ++c) m.view().f32()[i++] = p->at(r, c);
  return m;
}

void expect_value(float got, double want, const std::string& what) {
  if (std::isnan(want))
    EXPECT_TRUE(std::isnan(got)) << what;
  else
    EXPECT_TRUE(static_cast<double>(got) == want && std::signbit(got) == std::signbit(want))
        << what << ": " << got << ", expected " << want;
}

// All codes of a format, starting at every residue of a vector.
TEST_P(Stored, EveryCodeHasItsValue) {
  const auto check = [](StoredType type, int64_t codes, double (*value)(uint32_t)) {
    const int bytes = ops::stored_format(type).block_bytes;
    for (const int64_t shift : {0, 1, 3}) {
      std::vector<uint8_t> data(u(codes * bytes + shift));
      for (int64_t i = 0; i < codes; ++i) std::memcpy(data.data() + shift + i * bytes, &i, u(bytes));  // little-endian
      StoredMatrix m;
      m.append({data.data() + shift, nullptr, 1, codes, 1, 1, type, ScaleType::none});
      Owned out(1, codes);
      ops::expand_rows(m, 0, 1, out);
      for (int64_t i = 0; i < codes; ++i)
        expect_value(out.view().f32()[i], value(static_cast<uint32_t>(i)), "code " + std::to_string(i));
    }
  };
  check(StoredType::f16, 65536, reference::f16);
  check(StoredType::bf16, 65536, reference::bf16_value);
  check(StoredType::f8_e4m3, 256, reference::f8_e4m3);
  check(StoredType::f8_e5m2, 256, reference::f8_e5m2);
}

TEST_P(Stored, WholeNumbersAreExact) {
  const auto check = [](auto zero, StoredType type) {
    using T = decltype(zero);
    std::vector<uint8_t> data(1 + 21 * sizeof(T));
    const size_t step = sizeof(T) > 2 ? 838861 : 6;
    for (size_t i = 0; i < 21; ++i) {
      const T v = static_cast<T>(i * step);
      std::memcpy(data.data() + 1 + i * sizeof(T), &v, sizeof(T));
    }
    StoredMatrix m;
    m.append({data.data() + 1, nullptr, 1, 21, 1, 1, type, ScaleType::none});
    Owned out(1, 21);
    ops::expand_rows(m, 0, 1, out);
    for (size_t i = 0; i < 21; ++i) EXPECT_EQ(out.view().f32()[i], static_cast<float>(i * step));
  };
  check(int8_t{}, StoredType::i8);
  check(int16_t{}, StoredType::i16);
  check(int32_t{}, StoredType::i32);
  check(int64_t{}, StoredType::i64);
}

TEST_P(Stored, Fp4LowNibbleIsTheEvenColumn) {
  std::vector<uint8_t> data(128);
  for (size_t i = 0; i < 128; ++i) data[i] = static_cast<uint8_t>(i % 16 * 16 + (i * 7 + i / 16) % 16);
  StoredMatrix m;
  m.append({data.data(), nullptr, 2, 128, 1, 2, StoredType::fp4, ScaleType::none});
  Owned out(2, 128);
  ops::expand_rows(m, 0, 2, out);
  for (int64_t r = 0; r < 2; ++r) {
    for (int64_t c = 0; c < 128; ++c) {
      const uint8_t b = data[u(r * 64 + c / 2)];
      expect_value(out.view().f32(r)[c], reference::f4_e2m1(c % 2 ? b >> 4 : b & 15u), "column " + std::to_string(c));
    }
  }
}

TEST_P(Stored, EveryScaleCodeHasItsValue) {
  for (int code = 0; code < 256; ++code) {
    const uint8_t one = 0x38, scale = static_cast<uint8_t>(code);  // 1.0
    StoredMatrix m;
    m.append({&one, &scale, 1, 1, 128, 128, StoredType::f8_e4m3, ScaleType::f8_e8m0});
    Owned out(1, 1);
    ops::expand_rows(m, 0, 1, out);
    expect_value(out.view().f32()[0], reference::f8_e8m0(static_cast<uint32_t>(code)), "scale " + std::to_string(code));
  }
}

// Partial blocks, sizes around a vector and a block, odd alignments.
TEST_P(Stored, ExpandsBlocksToTheirEdges) {
  for (const StoredFormat& f : stored_formats()) {
    for (const auto& [rows, cols] : std::vector<std::pair<int64_t, int64_t>>{
             {1, 2}, {3, 14}, {2, 16}, {5, 18}, {7, 30}, {127, 126}, {129, 130}, {128, 256}, {260, 34}, {1, 700}}) {
      for (const size_t off : {size_t{0}, size_t{1}}) {
        const StoredCase c(f, rows, cols, 7, off);
        Owned out(rows, cols);
        ops::expand_rows(matrix_of({&c}), 0, rows, out);
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t k = 0; k < cols; ++k)
            ASSERT_EQ(out.view().f32(r)[k], c.at(r, k))
                << f.name << " " << rows << "x" << cols << " at " << r << "," << k;
      }
    }
  }
}

TEST_P(Stored, ExpandsAnyRowsOfStackedParts) {
  const auto& formats = stored_formats();
  const StoredCase a(formats[0], 5, 70, 1), b(formats[5], 131, 70, 2), c(formats[8], 20, 70, 3, 1),
      none(formats[2], 0, 70, 4);
  const StoredMatrix m = matrix_of({&a, &b, &none, &c});
  const Owned want = master_of({&a, &b, &none, &c});
  EXPECT_EQ(m.rows, 156);
  Owned all(156, 70);
  const Exec exec(2);
  ops::expand(exec, m, all);
  EXPECT_TRUE(all.same_bytes(want));
  for (const auto& [first, count] : std::vector<std::pair<int64_t, int64_t>>{
           {0, 0}, {0, 5}, {4, 2}, {5, 131}, {3, 140}, {135, 21}, {136, 20}, {156, 0}}) {
    Owned some(count, 70);
    ops::expand_rows(m, first, count, some);
    if (count == 0) continue;
    EXPECT_EQ(std::memcmp(some.view().data, want.view().f32(first), u(count * 70 * 4)), 0) << first;
  }
}

// The promise: the same bits as from panels packed in advance.
struct Product {
  const Exec& exec;
  Arena arena{size_t{64} << 20};
  Packed packed(const Owned& master, int64_t first, int64_t count, DType dtype, bool transposed) {
    const CMat w = master.view().row_block(first, count);
    const Packed p = transposed ? Packed::take(arena, dtype, w.cols, count) : Packed::take(arena, dtype, count, w.cols);
    transposed ? ops::pack_transposed(exec, w, p) : ops::pack(exec, w, p);
    return p;
  }
};

void expect_same_product(const Exec& exec, const StoredMatrix& m, const Owned& master, int64_t rows, DType dtype,
                         int64_t first, int64_t count, bool transposed) {
  Product product{exec};
  const Packed stored =
      transposed ? Packed::transposed_rows(m, first, count, dtype) : Packed::rows(m, first, count, dtype);
  const Packed packed = product.packed(master, first, count, dtype, transposed);
  const Owned a = random(rows, packed.k, 5, 1.0, dtype);
  for (const DType out : {f32_t, dtype}) {
    Owned got(rows, packed.n, out), want(rows, packed.n, out);
    ops::gemm(exec, a, stored, got);
    ops::gemm(exec, a, packed, want);
    if (out == f32_t) {
      ops::gemm(exec, a, stored, got, ops::Store::accumulate);
      ops::gemm(exec, a, packed, want, ops::Store::accumulate);
    }
    ASSERT_TRUE(got.same_bytes(want)) << rows << " rows, " << dtype_name(dtype)
                                      << (transposed ? ", transposed" : ", as it is");
  }
}

TEST_P(Stored, ProductsHaveTheBitsOfPackedWeights) {
  const Exec exec(2);
  for (const StoredFormat& f : stored_formats()) {
    for (const auto& [n, k] :
         std::vector<std::pair<int64_t, int64_t>>{{1, 2}, {15, 34}, {16, 32}, {17, 96}, {130, 258}, {65, 1100}}) {
      for (const size_t off : {size_t{0}, size_t{1}}) {
        const StoredCase c(f, n, k, 11, off);
        const StoredMatrix m = matrix_of({&c});
        const Owned master = master_of({&c});
        for (const DType dtype : {f32_t, bf16_t})
          for (const int64_t rows : {1, 2, 3, 4, 13, 40}) expect_same_product(exec, m, master, rows, dtype, 0, n, true);
      }
    }
  }
}

// Weights of bf16 are read where they lie for one row: widths that leave columns over, rows that leave lanes over.
TEST_P(Stored, OneRowOfAnyWidth) {
  const Exec exec(2);
  for (const auto& [n, k] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {7, 15}, {8, 16}, {9, 17}, {40, 47}, {130, 33}, {3, 1201}}) {
    const StoredCase c(stored_formats()[3], n, k, 7);
    const StoredMatrix m = matrix_of({&c});
    const Owned master = master_of({&c});
    for (const DType dtype : {f32_t, bf16_t}) {
      expect_same_product(exec, m, master, 1, dtype, 0, n, true);
      expect_same_product(exec, m, master, 1, dtype, n / 2, n - n / 2, true);
    }
  }
}

TEST_P(Stored, ProductsWithRowsOfTheWeight) {
  const Exec exec(2);
  const auto& formats = stored_formats();
  const StoredCase a(formats[2], 37, 120, 1), b(formats[5], 131, 120, 2), c(formats[8], 24, 120, 3);
  const StoredMatrix m = matrix_of({&a, &b, &c});
  const Owned master = master_of({&a, &b, &c});
  for (const bool transposed : {true, false})
    for (const DType dtype : {f32_t, bf16_t})
      for (const auto& [first, count] :
           std::vector<std::pair<int64_t, int64_t>>{{0, 192}, {3, 1}, {30, 40}, {64, 128}, {168, 24}, {5, 0}})
        for (const int64_t rows : {1, 2, 35})
          expect_same_product(exec, m, master, rows, dtype, first, count, transposed);
}

TEST_P(Stored, ManyRowsAndDeepSums) {
  const Exec exec(2);
  const StoredCase c(stored_formats()[6], 300, 1540, 1);
  const StoredMatrix m = matrix_of({&c});
  const Owned master = master_of({&c});
  for (const DType dtype : {f32_t, bf16_t})
    for (const bool transposed : {true, false}) expect_same_product(exec, m, master, 300, dtype, 0, 300, transposed);
}

TEST_P(Stored, GroupsOfStoredWeights) {
  const Exec exec(2);
  const std::vector<int32_t> offsets = {0, 3, 3, 40, 41};
  std::vector<StoredCase> cases;
  for (size_t g = 0; g < 4; ++g) cases.emplace_back(stored_formats()[5 + g % 4], 50, 640, 20 + g);
  std::vector<StoredMatrix> matrices;
  for (const auto& c : cases) matrices.push_back(matrix_of({&c}));
  for (const DType dtype : {f32_t, bf16_t}) {
    Product product{exec};
    std::vector<Packed> stored, packed;
    std::vector<Owned> masters;
    for (size_t g = 0; g < 4; ++g) masters.push_back(master_of({&cases[g]}));
    for (size_t g = 0; g < 4; ++g) {
      stored.push_back(Packed::transposed_rows(matrices[g], 0, 50, dtype));
      packed.push_back(product.packed(masters[g], 0, 50, dtype, true));
    }
    const Owned x = random(41, 640, 3, 1.0, dtype);
    Owned got(41, 50, dtype), want(41, 50, dtype);
    ops::grouped_gemm(exec, x, offsets, stored, got);
    ops::grouped_gemm(exec, x, offsets, packed, want);
    EXPECT_TRUE(got.same_bytes(want));
  }
}

TEST_P(Stored, ThreadsDoNotChangeBits) {
  const StoredCase c(stored_formats()[5], 400, 900, 1);
  const StoredMatrix m = matrix_of({&c});
  const Owned x = random(70, 900, 2, 1.0, bf16_t);
  std::vector<Owned> y;
  for (const int threads : {1, 2, 3, 7}) {
    const Exec exec(threads);
    y.emplace_back(70, 400, bf16_t);
    ops::gemm(exec, x, Packed::transposed_rows(m, 0, 400, bf16_t), y.back());
    EXPECT_TRUE(y.back().same_bytes(y[0])) << threads;
  }
}

TEST_P(Stored, EmbeddingReadsRows) {
  const Exec exec(2);
  const std::vector<int32_t> ids = {3, 0, 99, 3, 50};
  for (const StoredFormat& f : stored_formats()) {
    const StoredCase c(f, 100, 46, 4, 1);
    const StoredMatrix m = matrix_of({&c});
    const Owned master = master_of({&c});
    for (const DType dtype : {f32_t, bf16_t}) {
      Owned got(5, 46, dtype), want(5, 46, dtype);
      ops::embedding_forward(exec, m, ids, got);
      ops::embedding_forward(exec, master, ids, want);
      EXPECT_TRUE(got.same_bytes(want)) << f.name;
    }
  }
}

TEST(StoredContract, RefusesPartsThatDoNotFit) {
  const StoredCase a(stored_formats()[2], 4, 32, 1), b(stored_formats()[2], 4, 34, 2),
      odd(stored_formats()[2], 2, 33, 3);
  StoredMatrix m = matrix_of({&a});
  EXPECT_THROW(m.append(b.tensor()), ContractViolation);
  StoredTensor t = odd.tensor();
  t.type = StoredType::fp4;
  StoredMatrix other;
  EXPECT_THROW(other.append(t), ContractViolation);
  for (int type = static_cast<int>(StoredType::q4_0); type < kernels::kStoredTypes; ++type) {  // half a block too wide
    t.type = static_cast<StoredType>(type);
    const ops::StoredFormat f = ops::stored_format(t.type);
    t.cols = 2 * f.block_elements + f.block_elements / 2;
    EXPECT_THROW(other.append(t), ContractViolation) << f.name;
    t.cols = 2 * f.block_elements;
    EXPECT_EQ(t.row_bytes(), 2 * f.block_bytes) << f.name;
    StoredTensor scaled = t;
    scaled.scale_type = ScaleType::f32, scaled.scale = t.data;
    EXPECT_THROW(other.append(scaled), ContractViolation) << f.name;
  }
  EXPECT_THROW(Packed::rows(m, 2, 3, f32_t), ContractViolation);
  EXPECT_THROW(ops::expand_rows(m, 0, 4, Owned(4, 31)), ContractViolation);
}

}  // namespace
}  // namespace birkhoff::test
