// Copies and sums of rows, in every pair of types, on every instruction set.
#include "ops/rows/elementwise.h"

#include "support/matrix.h"

namespace birkhoff::test {
namespace {

TEST(Elementwise, CopyAddAndZero) {
  const Exec exec(2);
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    for (DType from : {f32_t, bf16_t})
      for (DType to : {f32_t, bf16_t})
        for (const auto& [R, C] : std::vector<std::pair<int64_t, int64_t>>{
                 {0, 8}, {1, 1}, {3, 7}, {3, 8}, {2, 9}, {2, 15}, {2, 16}, {2, 17}, {300, 129}}) {
          SCOPED_TRACE(std::string(isa_name(isa)) + " " + dtype_name(from) + " to " + dtype_name(to) + " " +
                       std::to_string(R) + "x" + std::to_string(C));
          const Owned a = random(R, C, 1, 1, from), b = random(R, C, 2, 1, to);
          Owned copied = b, added = b;
          ops::copy(exec, a, copied);
          ops::add(exec, a, added);
          Owned want(R, C, to), sum(R, C, to);
          for (int64_t i = 0; i < R * C; ++i) {
            want.set(i, a.at(i));
            sum.set(i, static_cast<double>(static_cast<float>(a.at(i)) + static_cast<float>(b.at(i))));
          }
          EXPECT_TRUE(copied.same_bytes(want)) << "one rounding, to nearest even";
          EXPECT_TRUE(added.same_bytes(sum)) << "summed in fp32, one rounding";
          ops::zero(exec, added);
          EXPECT_EQ(largest(added.values()), 0.0);
        }
  }
}

TEST(Elementwise, PartsAreAddedInTheirOrder) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    for (int64_t C : {1, 8, 17, 5000}) {
      const Owned parts = random(6, C + 3, 1);
      Owned total[2] = {random(1, C, 2), random(1, C, 2)}, want = random(1, C, 2);
      for (int i = 0; i < 2; ++i) ops::add_parts(Exec(i ? 3 : 1), parts, total[i]);
      for (int64_t c = 0; c < C; ++c) {
        auto s = static_cast<float>(want.at(c));
        for (int64_t r = 0; r < 6; ++r) s += static_cast<float>(parts.at(r, c));
        want.set(c, s);
      }
      EXPECT_TRUE(total[0].same_bytes(total[1]));
      expect_close(total[0].values(), want.values(), 7 * 0x1p-24 * largest(want.values()) * 2, isa_name(isa));
    }
  }
}

}  // namespace
}  // namespace birkhoff::test
