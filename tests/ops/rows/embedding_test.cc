// Token embedding: the lookup is linear in the table, so its gradient is the transpose, <d_out, E table> = <E^T d_out,
// table>.
#include "ops/rows/embedding.h"

#include "reference/complex_step.h"
#include "support/matrix.h"

namespace birkhoff::test {
namespace {

template <class S>
std::vector<S> lookup(const std::vector<S>& table, const std::vector<int32_t>& ids, size_t D) {
  std::vector<S> out;
  for (const int32_t id : ids)
    for (size_t c = 0; c < D; ++c) out.push_back(table[static_cast<size_t>(id) * D + c]);
  return out;
}

std::vector<int32_t> some_ids(int64_t T, int64_t V) {
  std::vector<int32_t> ids;
  const Rng rng(5);
  for (int64_t t = 0; t < T; ++t)
    ids.push_back(static_cast<int32_t>(rng.uniform(static_cast<uint64_t>(t)) * static_cast<double>(V)));
  return ids;
}

void check(int64_t T, int64_t V, int64_t D, DType t) {
  SCOPED_TRACE(std::to_string(T) + " of " + std::to_string(V) + "x" + std::to_string(D) + " " + dtype_name(t));
  const Exec exec(1);
  const auto ids = some_ids(T, V);
  const Owned table = random(V, D, 1), d_out = random(T, D, 2, 1, t);
  Owned out = random(T, D, 3, 1, t), d_table = random(V, D, 4);
  const auto before = d_table.values();
  ops::embedding_forward(exec, table, ids, out);
  ops::embedding_backward(exec, ids, d_out, d_table);
  const auto width = static_cast<size_t>(D);
  expect_close(out.values(), lookup(table.values(), ids, width), t == f32_t ? 0 : 0x1p-8 * largest(table.values()),
               "out");
  auto want = reference::complex_step(
      table.values(), [&](const auto& z) { return reference::dot(d_out.values(), lookup(z, ids, width)); });
  for (size_t i = 0; i < want.size(); ++i) want[i] += before[i];
  expect_close(d_table.values(), want, sum_tolerance(T + 1, largest(d_out.values()) + largest(before)), "d_table");
}

TEST(Embedding, ForwardAndGradients) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    SCOPED_TRACE(isa_name(isa));
    for (DType t : {f32_t, bf16_t}) {
      for (int64_t D : {1, 7, 8, 9, 16, 17, 33}) check(11, 5, D, t);
      check(0, 3, 8, t);
      check(1, 1, 1, t);
    }
  }
}

TEST(Embedding, ThreadsDoNotChangeBits) {
  const auto ids = some_ids(1000, 7);  // many rows of one id
  const Owned table = random(7, 200, 1), d_out = random(1000, 200, 2, 1, bf16_t);
  Owned out[2], d_table[2];
  for (int i = 0; i < 2; ++i) {
    const Exec exec(i ? 3 : 1);
    out[i] = Owned(1000, 200, bf16_t), d_table[i] = Owned(7, 200);
    ops::embedding_forward(exec, table, ids, out[i]);
    ops::embedding_backward(exec, ids, d_out, d_table[i]);
  }
  EXPECT_TRUE(out[0].same_bytes(out[1]) && d_table[0].same_bytes(d_table[1]));
}

}  // namespace
}  // namespace birkhoff::test
