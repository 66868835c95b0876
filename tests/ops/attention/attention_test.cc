#include "ops/attention/attention.h"

#include "core/arena.h"
#include "ops/attention/paged_rows.h"
#include "reference/attention.h"
#include "reference/complex_step.h"
#include "support/matrix.h"

namespace birkhoff::test {
namespace {

using reference::Attention;

// Rows [begin, end) of a matrix whose documents start at `starts`.
std::vector<int32_t> documents(int64_t rows, const std::vector<int32_t>& starts) {
  std::vector<int32_t> first(static_cast<size_t>(rows));
  for (int32_t s : starts)
    for (int64_t t = s; t < rows; ++t) first[static_cast<size_t>(t)] = s;
  return first;
}
std::vector<int32_t> window(int64_t rows, int64_t width) {
  std::vector<int32_t> first(static_cast<size_t>(rows));
  for (int64_t t = 0; t < rows; ++t)
    first[static_cast<size_t>(t)] = static_cast<int32_t>(std::max<int64_t>(0, t - width + 1));
  return first;
}

struct AttentionCase {
  Attention ref;
  Owned q, k, v, d_o;
  DType t;

  AttentionCase(Attention r, DType type, double sd = 1.0)
      : ref(std::move(r)),
        q(random(ref.queries, ref.heads * ref.qk, 1, sd, type)),
        k(random(ref.keys, ref.kv_heads * ref.qk, 2, sd, type)),
        v(random(ref.keys, ref.kv_heads * ref.vd, 3, 1.0, type)),
        d_o(random(ref.queries, ref.heads * ref.vd, 4, 1.0, type)),
        t(type) {}
  ops::AttentionShape shape() const { return {ref.heads, ref.kv_heads, ref.qk, ref.vd, static_cast<float>(ref.scale)}; }
  // Relative error of a probability: of scores and lse (absolute), of 2^x, and of a sum over all keys.
  double probability_error() const {
    const double score = ref.scale * static_cast<double>(ref.qk) * largest(q.values()) * largest(k.values());
    const double keys = static_cast<double>(ref.keys);
    return 0x1p-24 * (score * 4 + std::log(keys + 1) + keys + 8) + (t == bf16_t ? 5e-7 : 0);
  }
};

struct AttentionResult {
  Owned o, lse, dq, dk, dv;
  bool same(const AttentionResult& r) const {
    return o.same_bytes(r.o) && lse.same_bytes(r.lse) && dq.same_bytes(r.dq) && dk.same_bytes(r.dk) &&
           dv.same_bytes(r.dv);
  }
};

AttentionResult run(const AttentionCase& c, const Exec& exec, const std::vector<int32_t>& segments, bool backward) {
  AttentionResult r{Owned(c.ref.queries, c.ref.heads * c.ref.vd, c.t), Owned(c.ref.queries, c.ref.heads), {}, {}, {}};
  ops::attention_forward(exec, c.shape(), c.q, c.k, c.v, c.ref.first_key, r.o, r.lse);
  if (!backward) return r;
  r.dq = random(c.ref.queries, c.ref.heads * c.ref.qk, 9, 1.0, c.t);  // assigned, so old values must not matter
  r.dk = random(c.ref.keys, c.ref.kv_heads * c.ref.qk, 9, 1.0, c.t);
  r.dv = random(c.ref.keys, c.ref.kv_heads * c.ref.vd, 9, 1.0, c.t);
  ops::attention_backward(exec, c.shape(), {c.q, c.k, c.v, c.ref.first_key, segments, r.o, r.lse}, c.d_o,
                          {r.dq, r.dk, r.dv});
  return r;
}

double storage_error(DType t) { return t == f32_t ? 0x1p-24 : 0x1p-9; }

void check_forward(const AttentionCase& c) {
  const auto want = c.ref.forward(c.q.values(), c.k.values(), c.v.values());
  const AttentionResult got = run(c, Exec(1), {}, false);
  const double e = c.probability_error();
  // Probabilities are rounded to the storage type, o once more.
  expect_close(got.o.values(), want.o, largest(c.v.values()) * (2 * e + 2 * storage_error(c.t)), "o");
  expect_close(got.lse.values(), want.lse, e * (1 + largest(want.lse)), "lse");
}

void check_backward(const AttentionCase& c, const std::vector<int32_t>& segments) {
  const auto want = c.ref.backward(c.q.values(), c.k.values(), c.v.values(), c.d_o.values());
  const AttentionResult got = run(c, Exec(1), segments, true);
  // Roundings to the storage type: P or dS, o inside delta, and the result; everything else is fp32.
  const double e = 4 * c.probability_error() + 3 * storage_error(c.t);
  expect_close(got.dq.values(), want.dq, e * largest(want.size_dq), "dq");
  expect_close(got.dk.values(), want.dk, e * largest(want.size_dk), "dk");
  expect_close(got.dv.values(), want.dv, e * largest(want.size_dv), "dv");
}

std::string name(const Attention& a) {
  return "heads " + std::to_string(a.heads) + "/" + std::to_string(a.kv_heads) + " qk " + std::to_string(a.qk) + " v " +
         std::to_string(a.vd) + " T " + std::to_string(a.queries) + " M " + std::to_string(a.keys);
}

TEST(Attention, ReferenceGradientIsTheDerivative) {
  for (const Attention& ref :
       {Attention{2, 1, 3, 2, 0.7, 9, 9, documents(9, {0, 4})}, Attention{2, 2, 4, 3, 0.5, 7, 7, window(7, 3)}}) {
    const AttentionCase c(ref, f32_t);
    const auto q = c.q.values(), k = c.k.values(), v = c.v.values(), g = c.d_o.values();
    const auto want = ref.backward(q, k, v, g);
    const auto loss = [&](const auto& a, const auto& b, const auto& x) {
      return reference::dot(g, ref.forward(a, b, x).o);
    };
    using reference::lift;
    const auto dq = reference::complex_step(q, [&](const auto& z) { return loss(z, lift(k), lift(v)); });
    const auto dk = reference::complex_step(k, [&](const auto& z) { return loss(lift(q), z, lift(v)); });
    const auto dv = reference::complex_step(v, [&](const auto& z) { return loss(lift(q), lift(k), z); });
    expect_close(want.dq, dq, 1e-13, "dq");
    expect_close(want.dk, dk, 1e-13, "dk");
    expect_close(want.dv, dv, 1e-13, "dv");
  }
}

TEST(Attention, ForwardMatchesSpecification) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    for (DType t : {f32_t, bf16_t}) {
      for (const auto& [queries, keys] : std::vector<std::pair<int64_t, int64_t>>{
               {0, 0}, {1, 1}, {2, 2}, {17, 17}, {64, 64}, {65, 65}, {129, 129}, {1, 200}, {5, 133}, {70, 300}}) {
        for (const auto& [h, kv, qk, vd] :
             std::vector<std::array<int64_t, 4>>{{2, 2, 48, 32}, {4, 2, 33, 17}, {3, 1, 16, 64}}) {
          const Attention ref{
              h, kv, qk, vd, 1 / std::sqrt(static_cast<double>(qk)), queries, keys, documents(queries, {0})};
          SCOPED_TRACE(std::string(isa_name(isa)) + " " + dtype_name(t) + " " + name(ref));
          check_forward(AttentionCase(ref, t));
          check_forward(AttentionCase(ref, t, 4.0));  // scores of tens: the reference of the powers moves
        }
      }
    }
  }
}

TEST(Attention, BackwardMatchesSpecification) {
  const std::vector<Attention> shapes = {
      {2, 2, 48, 32, 0.15, 1, 1, documents(1, {0})},
      {1, 1, 1, 1, 1.0, 2, 2, documents(2, {0})},
      {4, 2, 33, 17, 0.2, 63, 63, documents(63, {0})},
      {2, 1, 96, 64, 0.1, 131, 131, documents(131, {0})},
      {2, 2, 16, 24, 0.25, 260, 260, documents(260, {0})},
      {2, 1, 24, 16, 0.2, 200, 200, documents(200, {0, 1, 40, 130, 199})},
      {2, 2, 16, 16, 0.25, 40, 40, window(40, 7)},
  };
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    for (DType t : {f32_t, bf16_t}) {
      for (const Attention& ref : shapes) {
        SCOPED_TRACE(std::string(isa_name(isa)) + " " + dtype_name(t) + " " + name(ref));
        check_backward(AttentionCase(ref, t), {0});
      }
      check_backward(AttentionCase({2, 1, 24, 16, 0.2, 90, 90, documents(90, {0, 30, 31, 60})}, t), {0, 30, 60, 90});
      check_backward(AttentionCase({2, 1, 24, 16, 0.2, 0, 0, {}}, t), {});
    }
  }
}

// The same bits for a query alone with its keys (decoding), in a chunk, and in the full forward, wherever its document
// stands.
TEST(Attention, DecodeEqualsFullForward) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    for (DType t : {f32_t, bf16_t}) {
      const int64_t rows = 300, start = 37;
      const AttentionCase c({4, 2, 48, 32, 0.15, rows, rows, documents(rows, {0, static_cast<int32_t>(start)})}, t);
      const AttentionResult full = run(c, Exec(1), {}, false);
      const auto expect_rows = [&](int64_t from, int64_t to, int64_t origin) {  // queries [from, to), keys [origin, to)
        const int64_t n = to - from;
        Owned o(n, full.o.view().cols, t), lse(n, 4);
        const auto first = documents(n, {0});
        const std::vector<int32_t> shifted(static_cast<size_t>(n), static_cast<int32_t>(start - origin));
        ops::attention_forward(Exec(1), c.shape(), c.q.view().row_block(from, n),
                               c.k.view().row_block(origin, to - origin), c.v.view().row_block(origin, to - origin),
                               shifted, o, lse);
        for (int64_t i = 0; i < o.size(); ++i)
          ASSERT_EQ(o.at(i), full.o.at(from * full.o.view().cols + i)) << isa_name(isa) << " row " << from;
        for (int64_t i = 0; i < lse.size(); ++i) ASSERT_EQ(lse.at(i), full.lse.at(from * 4 + i));
      };
      for (int64_t row : {37, 38, 68, 69, 100, 101, 164, 165, 166, 255, 299}) {
        expect_rows(row, row + 1, 0);
        expect_rows(row, row + 1, start);  // the document alone in the cache
      }
      expect_rows(start, rows, start);
      expect_rows(150, 157, start);
      expect_rows(90, 201, 10);
    }
  }
}

// Rows of heads in pages that are out of order.
struct PagedHeads {
  ops::PageMemory memory;
  std::vector<int32_t> pages;
  ops::PagedRows rows;
  Arena bytes;
  PagedHeads(CMat x, int64_t heads)
      : memory{ops::cache_type_of(x.dtype)},
        rows(memory, std::vector<int64_t>(static_cast<size_t>(heads), x.cols / heads), ops::RowLayout::by_group),
        bytes(static_cast<size_t>(memory.page_bytes * (x.rows / ops::kPageRows + 1))) {
    memory.base = bytes.base();
    for (int64_t i = x.rows / ops::kPageRows; i >= 0; --i) pages.push_back(static_cast<int32_t>(i));
    rows.write(Exec(1), x, pages, 0);
  }
  ops::KeyRows first(int64_t n) const { return rows.view(pages, n); }
};

// Few columns read keys and values where they lie, rows of pages included; many pack them. Widths that end within a
// vector, groups of heads, lengths around the steps of keys, scores that make references move.
TEST(Attention, FewQueriesHaveTheBitsOfMany) {
  struct Widths {
    int64_t heads, kv_heads, qk, vd;
  };
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    for (DType t : {f32_t, bf16_t})
      for (const Widths& w : std::vector<Widths>{{3, 1, 64, 64}, {8, 2, 128, 128}, {2, 2, 192, 96}, {7, 1, 40, 24}}) {
        const int64_t rows = 390;
        const AttentionCase c({w.heads, w.kv_heads, w.qk, w.vd, 0.4, rows, rows, documents(rows, {0, 5})}, t, 2.0);
        const AttentionResult many = run(c, Exec(1), {}, false);
        const PagedHeads k(c.k, w.kv_heads), v(c.v, w.kv_heads);
        for (int64_t end : {rows, int64_t{257}, int64_t{131}, int64_t{64}})
          for (int64_t n : {1, 2, 3, 5}) {
            SCOPED_TRACE(std::string(isa_name(isa)) + " " + std::to_string(end) + " " + std::to_string(n));
            Owned o(n, w.heads * w.vd, t), lse(n, w.heads);
            const std::vector<int32_t> first(static_cast<size_t>(n), 5);
            ops::attention_forward(Exec(1), c.shape(), c.q.view().row_block(end - n, n), k.first(end), v.first(end),
                                   first, o, lse);
            for (int64_t r = 0; r < n; ++r) {
              for (int64_t j = 0; j < w.heads * w.vd; ++j) ASSERT_EQ(o.at(r, j), many.o.at(end - n + r, j));
              for (int64_t j = 0; j < w.heads; ++j) ASSERT_EQ(lse.at(r, j), many.lse.at(end - n + r, j));
            }
          }
      }
  }
}

// Nothing of another document reaches a result, not even NaN; nor do later keys.
TEST(Attention, DocumentsAndCausality) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    SCOPED_TRACE(isa_name(isa));
    for (DType t : {f32_t, bf16_t}) {
      const int64_t rows = 180, begin = 50, end = 131;
      AttentionCase c({2, 1, 33, 17, 0.2, rows, rows, documents(rows, {0, 50, 131})}, t);
      const AttentionResult before = run(c, Exec(1), {0}, true);
      AttentionCase other = c;
      for (Owned* m : {&other.q, &other.k, &other.v, &other.d_o})
        for (int64_t i = 0; i < m->size(); ++i)
          if (const int64_t r = i / m->view().cols; r < begin || r >= end) m->set(i, NAN);
      const AttentionResult after = run(other, Exec(1), {0, 50, 131}, true);
      const auto expect_rows_equal = [&](const Owned& a, const Owned& b, int64_t from, int64_t to) {
        for (int64_t r = from; r < to; ++r)
          for (int64_t j = 0; j < a.view().cols; ++j) ASSERT_EQ(a.at(r, j), b.at(r, j)) << "row " << r;
      };
      expect_rows_equal(before.o, after.o, begin, end);
      expect_rows_equal(before.lse, after.lse, begin, end);
      expect_rows_equal(before.dq, after.dq, begin, end);
      expect_rows_equal(before.dk, after.dk, begin, end);
      expect_rows_equal(before.dv, after.dv, begin, end);

      AttentionCase later = c;
      for (Owned* m : {&later.k, &later.v})
        for (int64_t i = 90 * m->view().cols; i < m->size(); ++i) m->set(i, -3.5);
      const AttentionResult causal = run(later, Exec(1), {0}, false);
      expect_rows_equal(before.o, causal.o, 0, 90);
      EXPECT_NE(before.o.at(90, 0), causal.o.at(90, 0));
    }
  }
}

TEST(Attention, ThreadsAndSegmentsDoNotChangeBits) {
  for (DType t : {f32_t, bf16_t}) {
    const AttentionCase c({4, 2, 48, 32, 0.15, 500, 500, documents(500, {0, 100, 256, 300})}, t);
    const AttentionResult one = run(c, Exec(1), {0, 256}, true);
    EXPECT_TRUE(one.same(run(c, Exec(3), {0, 256}, true)));
    EXPECT_TRUE(one.same(run(c, Exec(2), {0}, true)));
    EXPECT_TRUE(one.same(run(c, Exec(2), {0, 100, 256, 300}, true)));
  }
}

// Views of wider matrices, no lse, huge and equal scores.
TEST(Attention, ViewsAndExtremes) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    SCOPED_TRACE(isa_name(isa));
    const AttentionCase c({2, 1, 8, 8, 0.3, 70, 70, documents(70, {0})}, f32_t);
    const AttentionResult plain = run(c, Exec(1), {0}, true);
    Owned wide(70, 100);
    const Mat q = wide.view().col_block(0, 16), k = wide.view().col_block(17, 8), v = wide.view().col_block(26, 8);
    for (int64_t r = 0; r < 70; ++r) {
      for (int64_t j = 0; j < 16; ++j) q.f32(r)[j] = static_cast<float>(c.q.at(r, j));
      for (int64_t j = 0; j < 8; ++j)
        k.f32(r)[j] = static_cast<float>(c.k.at(r, j)), v.f32(r)[j] = static_cast<float>(c.v.at(r, j));
    }
    const Mat o = wide.view().col_block(35, 16);
    ops::attention_forward(Exec(1), c.shape(), q, k, v, c.ref.first_key, o, Mat());
    for (int64_t r = 0; r < 70; ++r)
      for (int64_t j = 0; j < 16; ++j) ASSERT_EQ(o.f32(r)[j], plain.o.at(r, j));

    for (double sd : {0.0, 300.0}) {  // all keys alike: the mean of the values; scores of 1e5: one key takes all
      for (DType t : {f32_t, bf16_t}) {
        const AttentionCase extreme({2, 1, 8, 8, 0.3, 70, 70, documents(70, {0})}, t, sd);
        const AttentionResult r = run(extreme, Exec(1), {0}, true);
        if (sd == 0) check_forward(extreme);
        for (const Owned* m : {&r.o, &r.lse, &r.dq, &r.dk, &r.dv})
          for (double x : m->values()) ASSERT_TRUE(std::isfinite(x));
      }
    }
  }
}

TEST(Attention, Contracts) {
  const AttentionCase c({2, 1, 8, 8, 0.3, 4, 4, {0, 0, 3, 0}}, f32_t);  // row 2 would see nothing
  EXPECT_THROW(run(c, Exec(1), {0}, false), ContractViolation);
  const AttentionCase d({2, 1, 8, 8, 0.3, 4, 4, {0, 0, 1, 1}}, f32_t);
  EXPECT_THROW(run(d, Exec(1), {0, 2}, true), ContractViolation);  // row 2 reaches back across a segment
  EXPECT_NO_THROW(run(d, Exec(1), {0}, true));
}

TEST(MlaExpand, CopiesAndSums) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    for (DType t : {f32_t, bf16_t}) {
      for (const auto& [rows, heads, nope, rope, vd] :
           std::vector<std::array<int64_t, 5>>{{0, 2, 4, 2, 3}, {1, 1, 1, 2, 1}, {130, 3, 32, 16, 33}}) {
        const Owned kv = random(rows, heads * (nope + vd), 1, 1.0, t), kr = random(rows, rope, 2, 1.0, t);
        Owned k(rows, heads * (nope + rope), t), v(rows, heads * vd, t);
        const Exec exec(2);
        ops::mla_expand_kv(exec, {heads, nope, rope, vd}, kv, kr, k, v);
        const Owned dk = random(rows, heads * (nope + rope), 3, 1.0, t), dv = random(rows, heads * vd, 4, 1.0, t);
        Owned dkv(rows, heads * (nope + vd), t), dkr(rows, rope, t);
        ops::mla_expand_kv_backward(exec, {heads, nope, rope, vd}, dk, dv, dkv, dkr);
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t h = 0; h < heads; ++h) {
            for (int64_t j = 0; j < nope + rope; ++j)
              ASSERT_EQ(k.at(r, h * (nope + rope) + j), j < nope ? kv.at(r, h * (nope + vd) + j) : kr.at(r, j - nope));
            for (int64_t j = 0; j < vd; ++j) ASSERT_EQ(v.at(r, h * vd + j), kv.at(r, h * (nope + vd) + nope + j));
            for (int64_t j = 0; j < nope; ++j)
              ASSERT_EQ(dkv.at(r, h * (nope + vd) + j), dk.at(r, h * (nope + rope) + j));
            for (int64_t j = 0; j < vd; ++j) ASSERT_EQ(dkv.at(r, h * (nope + vd) + nope + j), dv.at(r, h * vd + j));
          }
          for (int64_t j = 0; j < rope; ++j) {
            float sum = 0;
            for (int64_t h = 0; h < heads; ++h) sum += static_cast<float>(dk.at(r, h * (nope + rope) + nope + j));
            ASSERT_EQ(dkr.at(r, j), t == f32_t ? sum : to_float(to_bf16(sum)));
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace birkhoff::test
