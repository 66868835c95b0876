#include "ops/attention/sparse_attention.h"

#include "core/error.h"
#include "reference/sparse_attention.h"
#include "support/key_lists.h"
#include "support/layer_case.h"

namespace birkhoff::test {
namespace {

using reference::KeyLists;
using reference::SparseAttention;

struct SparseCase {
  SparseAttention ref;
  int64_t keys, width;
  DType t;
  bool shared;  // v is the first columns of k
  OwnedLists lists;
  Owned q, k, v, sink, d_o;

  SparseCase(SparseAttention r, int64_t n_keys, DType type, bool shared_values, bool with_sink, double sd = 1.0)
      : ref(std::move(r)),
        keys(n_keys),
        width(most(ref.lists) + 3),
        t(type),
        shared(shared_values),
        lists(ref.lists, width),
        q(random(queries(), n(ref.heads * ref.qk), 1, sd, type)),
        k(random(keys, n(ref.kv_heads * ref.qk), 2, sd, type)),
        v(random(keys, n(ref.kv_heads * ref.vd), 3, 1.0, type)),
        sink(with_sink ? random(1, n(ref.heads), 5) : Owned()),
        d_o(random(queries(), n(ref.heads * ref.vd), 4, 1.0, type)) {}
  static int64_t n(size_t i) { return static_cast<int64_t>(i); }
  static int64_t most(const KeyLists& lists) {
    size_t m = 0;
    for (const auto& l : lists) m = std::max(m, l.size());
    return n(m);
  }
  int64_t queries() const { return n(ref.lists.size()); }
  ops::SparseAttentionShape shape() const {
    return {n(ref.heads), n(ref.kv_heads), n(ref.qk), n(ref.vd), static_cast<float>(ref.scale)};
  }
  CMat values() const { return shared ? CMat(k).col_block(0, n(ref.vd)) : CMat(v); }
  template <class S>
  std::vector<S> reference_values(const std::vector<S>& key, const std::vector<S>& value) const {
    if (!shared) return value;
    std::vector<S> out;
    for (size_t r = 0; r < static_cast<size_t>(keys); ++r)
      out.insert(out.end(), key.begin() + n(r * ref.qk), key.begin() + n(r * ref.qk + ref.vd));
    return out;
  }
  std::vector<double> sink_values() const { return sink.size() ? sink.values() : std::vector<double>(); }
  // Relative error of a probability: that of the sums, and of its logit, whose rounding is relative to the largest one.
  double tolerance() const {
    double logit = sink.size() ? largest(sink.values()) : 0;
    const auto a = q.values(), b = k.values();
    for (size_t t0 = 0; t0 < ref.lists.size(); ++t0)
      for (int32_t key : ref.lists[t0])
        for (size_t h = 0; h < ref.heads; ++h) logit = std::max(logit, std::abs(ref.logit(a, b, t0, h, key)));
    return chain_tolerance(3, n(ref.qk) + width, t) + 4 * 0x1p-24 * logit;
  }
  // dS is a difference of terms of this size, which may cancel.
  double term() const {
    return ref.scale * largest(shared ? k.values() : v.values()) * largest(d_o.values()) *
           std::max(largest(q.values()), largest(k.values()));
  }
};

struct SparseResult {
  Owned o, lse, dq, dk, dv, d_sink;
  bool same(const SparseResult& r) const {
    return o.same_bytes(r.o) && lse.same_bytes(r.lse) && dq.same_bytes(r.dq) && dk.same_bytes(r.dk) &&
           dv.same_bytes(r.dv) && d_sink.same_bytes(r.d_sink);
  }
};

SparseResult run(const SparseCase& c, int threads, bool backward = true) {
  const Exec exec(threads);
  Arena scratch(size_t{64} << 20);
  SparseResult r{random(c.queries(), c.n(c.ref.heads * c.ref.vd), 7, 1.0, c.t),
                 random(c.queries(), c.n(c.ref.heads), 8),
                 {},
                 {},
                 {},
                 {}};
  ops::sparse_attention_forward(exec, c.shape(), {c.q, c.k, c.values(), c.lists, c.sink}, r.o, r.lse, scratch);
  if (!backward) return r;
  r.dq = random(c.queries(), c.n(c.ref.heads * c.ref.qk), 9, 1.0, c.t);  // assigned, so old values must not matter
  r.dk = random(c.keys, c.n(c.ref.kv_heads * c.ref.qk), 9, 1.0, c.t);
  if (!c.shared) r.dv = random(c.keys, c.n(c.ref.kv_heads * c.ref.vd), 9, 1.0, c.t);
  if (c.sink.size()) r.d_sink = Owned(1, c.n(c.ref.heads));
  ops::sparse_attention_backward(exec, c.shape(), {{c.q, c.k, c.values(), c.lists, c.sink}, r.o, r.lse}, c.d_o,
                                 {r.dq, r.dk, r.dv, r.d_sink}, scratch);
  EXPECT_EQ(scratch.used(), 0u);
  return r;
}

void check(const SparseCase& c, size_t most) {
  const Tensors<double> at = {{"q", c.q.values()}, {"k", c.k.values()}, {"v", c.v.values()}, {"sink", c.sink_values()}};
  const auto output = [&](const auto& z) {
    return c.ref.forward(z.at("q"), z.at("k"), c.reference_values(z.at("k"), z.at("v")), z.at("sink"));
  };
  const auto want = output(at);
  const auto cotangent = c.d_o.values();
  const auto gradient = reference::complex_gradient(
      at, [&](const auto& z) { return reference::dot(cotangent, output(z).o); }, most);
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    SCOPED_TRACE(isa_name(isa));
    const SparseResult got = run(c, 1);
    expect_close(got.o.values(), want.o, c.tolerance() * largest(c.shared ? c.k.values() : c.v.values()), "o");
    expect_close(got.lse.values(), want.lse, c.tolerance() * (1 + largest(want.lse)), "lse");
    const double slack = c.tolerance() * c.term();
    expect_gradient(got.dq.values(), gradient.at("q"), c.tolerance(), slack, "dq");
    expect_gradient(got.dk.values(), gradient.at("k"), c.tolerance(), slack, "dk");
    if (!c.shared) expect_gradient(got.dv.values(), gradient.at("v"), c.tolerance(), slack, "dv");
    if (c.sink.size()) expect_gradient(got.d_sink.values(), gradient.at("sink"), c.tolerance(), slack, "d_sink");
  }
}

TEST(SparseAttention, MatchesSpecification) {
  struct Form {
    size_t heads, kv_heads, qk, vd;
    int64_t queries, keys, least, most;
    bool shared, sink;
  };
  for (const Form& f : std::vector<Form>{{1, 1, 1, 1, 1, 1, 1, 1, false, false},
                                         {2, 2, 6, 5, 9, 9, 1, 4, false, false},
                                         {3, 3, 17, 9, 37, 37, 1, 12, false, true},
                                         {4, 2, 33, 16, 21, 50, 2, 20, false, false},
                                         {16, 1, 24, 16, 19, 30, 1, 9, true, true},
                                         {5, 1, 16, 16, 33, 90, 0, 70, true, true},
                                         {40, 1, 20, 12, 5, 140, 60, 130, true, false},
                                         {18, 2, 31, 33, 7, 200, 66, 150, false, true}}) {
    for (DType t : {f32_t, bf16_t}) {
      SCOPED_TRACE(std::to_string(f.heads) + "/" + std::to_string(f.kv_heads) + " heads, " + std::to_string(f.queries) +
                   " of " + std::to_string(f.keys) + " " + dtype_name(t));
      const KeyLists lists = random_lists(f.queries, f.keys, f.least, f.most, 11);
      check(SparseCase({f.heads, f.kv_heads, f.qk, f.vd, 1 / std::sqrt(static_cast<double>(f.qk)), lists}, f.keys, t,
                       f.shared, f.sink),
            40);
    }
  }
}

TEST(SparseAttention, LargeScoresAndSinks) {
  SparseCase c({2, 1, 16, 8, 1.0, random_lists(12, 20, 1, 9, 3)}, 20, f32_t, false, true, 3.0);  // scores of tens
  c.sink.set(0, 40), c.sink.set(1, -200);
  check(c, 30);
}

TEST(SparseAttention, NothingListed) {
  SparseCase c({2, 1, 8, 8, 0.5, KeyLists(3)}, 4, f32_t, true, true);
  const SparseResult r = run(c, 1);
  for (const Owned* m : {&r.o, &r.dq, &r.dk, &r.d_sink}) EXPECT_EQ(largest(m->values()), 0.0);
  for (int64_t t = 0; t < 3; ++t)
    for (int64_t h = 0; h < 2; ++h) EXPECT_NEAR(r.lse.at(t, h), c.sink.at(h), 1e-6);
  EXPECT_THROW(run(SparseCase({2, 1, 8, 8, 0.5, KeyLists(3)}, 4, f32_t, true, false), 1), ContractViolation);
}

TEST(SparseAttention, ListsAreChecked) {
  for (const KeyLists& bad : {KeyLists{{1, 1}}, KeyLists{{2, 1}}, KeyLists{{0, 4}}, KeyLists{{-1, 2}}, KeyLists{{-2}}})
    for (size_t heads : {1, 16})
      EXPECT_THROW(run(SparseCase({heads, 1, 4, 4, 0.5, bad}, 4, f32_t, false, true), 1, false), ContractViolation);
}

TEST(SparseAttention, NoQueries) { run(SparseCase({2, 1, 8, 8, 0.5, {}}, 4, f32_t, true, true), 1); }

// One query alone, with a neighbour, and in the whole; a list is the same keys wherever their rows are cut into tiles.
TEST(SparseAttention, OtherQueriesDoNotMatter) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    for (DType t : {f32_t, bf16_t}) {
      for (const auto& [heads, kv] : {std::pair<size_t, size_t>{3, 3}, {20, 1}}) {
        const KeyLists lists = random_lists(40, 150, 1, 90, 5);
        const SparseCase all({heads, kv, 24, 16, 0.2, lists}, 150, t, false, false);
        const SparseResult whole = run(all, 1, false);
        for (int64_t row : {0, 17, 39}) {
          SparseCase one({heads, kv, 24, 16, 0.2, {lists[static_cast<size_t>(row)]}}, 150, t, false, false);
          for (int64_t i = 0; i < one.q.size(); ++i) one.q.set(i, all.q.at(row * one.q.size() + i));
          const SparseResult alone = run(one, 1, false);
          for (int64_t i = 0; i < alone.o.size(); ++i)
            ASSERT_EQ(alone.o.at(i), whole.o.at(row * alone.o.size() + i)) << row;
          for (int64_t h = 0; h < alone.lse.size(); ++h)
            ASSERT_EQ(alone.lse.at(h), whole.lse.at(row * alone.lse.size() + h));
        }
      }
    }
  }
}

TEST(SparseAttention, ThreadsDoNotMatter) {
  for (DType t : {f32_t, bf16_t}) {
    for (const auto& [heads, kv] : {std::pair<size_t, size_t>{2, 2}, {17, 1}}) {
      const SparseCase c({heads, kv, 40, 24, 0.2, random_lists(130, 300, 1, 60, 5)}, 300, t, false, true);
      EXPECT_TRUE(run(c, 1).same(run(c, 3)));
    }
  }
}

TEST(SparseAttention, Target) {
  for (const auto& [heads, kv] : {std::pair<size_t, size_t>{3, 3}, {20, 1}}) {
    const KeyLists lists = random_lists(35, 90, 1, 40, 5);
    KeyLists part = lists;  // the target of some of the keys that attention saw
    for (auto& l : part) l.resize((l.size() + 1) / 2);
    const SparseCase c({heads, kv, 24, 16, 0.3, lists}, 90, f32_t, false, true);
    const SparseResult r = run(c, 1, false);
    SparseAttention ref = c.ref;
    ref.lists = part;
    const int64_t width = SparseCase::most(part) + 2;
    const auto want = ref.target(c.q.values(), c.k.values(), r.lse.values(), static_cast<size_t>(width));
    for (Isa isa : machine_isas()) {
      const IsaScope scope(isa);
      Arena scratch(size_t{8} << 20);
      Owned p = random(c.queries(), width, 4);
      ops::attention_target(Exec(2), c.shape(), c.q, c.k, r.lse, OwnedLists(part, width), p, scratch);
      expect_close(p.values(), want, 1e-5, isa_name(isa));
    }
  }
}

}  // namespace
}  // namespace birkhoff::test
