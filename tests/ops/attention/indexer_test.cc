#include "ops/attention/indexer.h"

#include <numeric>

#include "core/error.h"
#include "reference/sparse_attention.h"
#include "support/key_lists.h"
#include "support/layer_case.h"

namespace birkhoff::test {
namespace {

using reference::Indexer;
using reference::KeyLists;

struct IndexerCase {
  int64_t queries, keys, heads, dim;
  DType t;
  Owned q, k, w;
  std::vector<int32_t> first, end;

  IndexerCase(int64_t n_queries, int64_t n_keys, int64_t n_heads, int64_t d, DType type, int32_t document = 0)
      : queries(n_queries),
        keys(n_keys),
        heads(n_heads),
        dim(d),
        t(type),
        q(random(n_queries, n_heads * d, 1, 1.0, type)),
        k(random(n_keys, d, 2, 1.0, type)),
        w(random(n_queries, n_heads, 3, 1 / std::sqrt(static_cast<double>(n_heads * d)))) {
    for (int64_t i = 0; i < queries; ++i) {
      first.push_back(i < queries / 2 ? 0 : document);
      end.push_back(static_cast<int32_t>(keys - queries + i + 1));
    }
  }
  Indexer ref() const { return {static_cast<size_t>(heads), static_cast<size_t>(dim)}; }
  ops::IndexerShape shape() const { return {heads, dim}; }
  KeyLists select(int64_t most, int threads = 1) const {
    Arena scratch(1 << 20);
    OwnedLists out(KeyLists(static_cast<size_t>(queries)), most);
    ops::indexer_select(Exec(threads), shape(), {q, k, w}, first, end, out, scratch);
    return out.lists();
  }
};

// Scores of fp32 sums: a choice may differ from the specification's only between keys that nearly tie.
void expect_same_choice(const IndexerCase& c, const KeyLists& got, const KeyLists& want, const std::string& what) {
  const auto q = c.q.values(), k = c.k.values(), w = c.w.values();
  for (size_t t = 0; t < want.size(); ++t) {
    if (got[t] == want[t]) continue;
    ASSERT_EQ(got[t].size(), want[t].size()) << what << " row " << t;
    std::vector<int32_t> a, b;
    std::set_difference(got[t].begin(), got[t].end(), want[t].begin(), want[t].end(), std::back_inserter(a));
    std::set_difference(want[t].begin(), want[t].end(), got[t].begin(), got[t].end(), std::back_inserter(b));
    for (int32_t x : a)
      for (int32_t y : b)
        EXPECT_NEAR(c.ref().score(q, k, w, t, static_cast<size_t>(x)),
                    c.ref().score(q, k, w, t, static_cast<size_t>(y)), 1e-5)
            << what << " row " << t;
  }
}

TEST(Indexer, SelectsTheBestVisibleKeys) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    for (DType t : {f32_t, bf16_t}) {
      for (const auto& [queries, keys, heads, dim, most] : std::vector<std::array<int64_t, 5>>{{1, 1, 1, 1, 1},
                                                                                               {40, 40, 4, 16, 7},
                                                                                               {1, 700, 3, 33, 20},
                                                                                               {5, 530, 17, 8, 64},
                                                                                               {2, 4500, 2, 8, 100},
                                                                                               {35, 600, 2, 24, 1},
                                                                                               {16, 300, 4, 16, 290}}) {
        const IndexerCase c(queries, keys, heads, dim, t, static_cast<int32_t>(std::min<int64_t>(3, keys - queries)));
        const std::string what = std::string(isa_name(isa)) + " " + dtype_name(t) + " " + std::to_string(queries) +
                                 " of " + std::to_string(keys);
        expect_same_choice(
            c, c.select(most),
            c.ref().select(c.q.values(), c.k.values(), c.w.values(), c.first, c.end, static_cast<size_t>(most)), what);
      }
    }
  }
}

TEST(Indexer, EqualScoresGoToTheLowerKeyAndNanIsLast) {
  IndexerCase c(2, 20, 1, 4, f32_t);
  for (int64_t i = 0; i < c.q.size(); ++i) c.q.set(i, 1);
  for (int64_t s = 0; s < 20; ++s)
    for (int64_t d = 0; d < 4; ++d) c.k.set(s * 4 + d, s % 3 == 0 ? 1 : -1);  // 0 3 6 ... score 4 w, the others 0
  c.w.set(0, 1), c.w.set(1, -1);                                              // the second row's best are the zeros
  EXPECT_EQ(c.select(9), (KeyLists{{0, 1, 2, 3, 6, 9, 12, 15, 18}, {1, 2, 4, 5, 7, 8, 10, 11, 13}}));
  c.w.set(0, NAN);
  EXPECT_EQ(c.select(3)[0], (std::vector<int32_t>{0, 1, 2}));
}

TEST(Indexer, RowsAndThreadsDoNotMatter) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    for (DType t : {f32_t, bf16_t}) {
      const IndexerCase c(50, 2600, 6, 24, t, 20);  // more keys than a task of a single query takes on
      const KeyLists whole = c.select(30);
      EXPECT_EQ(whole, c.select(30, 3));
      for (int64_t row : {0, 20, 49}) {
        IndexerCase one(1, 2600, 6, 24, t);
        for (int64_t i = 0; i < one.q.size(); ++i) one.q.set(i, c.q.at(row * one.q.size() + i));
        for (int64_t i = 0; i < 6; ++i) one.w.set(i, c.w.at(row, i));
        one.first = {c.first[static_cast<size_t>(row)]}, one.end = {c.end[static_cast<size_t>(row)]};
        EXPECT_EQ(one.select(30)[0], whole[static_cast<size_t>(row)]);
      }
    }
  }
}

TEST(Indexer, ListsWhatIsVisible) {
  OwnedLists out(KeyLists(3), 4);
  const std::vector<int32_t> first = {0, 2, 5}, end = {4, 3, 5};
  ops::list_visible(Exec(1), first, end, out);
  EXPECT_EQ(out.lists(), (KeyLists{{0, 1, 2, 3}, {2}, {}}));
  OwnedLists narrow(KeyLists(3), 3);
  EXPECT_THROW(ops::list_visible(Exec(1), first, end, narrow), ContractViolation);
}

TEST(Indexer, QualityOfASelection) {
  const OwnedLists visible({{0, 1, 2, 3}, {2, 5}, {1, 2, 3, 4, 5}}, 5), selected({{0, 3}, {2, 5}, {2, 3, 4}}, 3);
  // Row 0: of 0.5 0.3 0.1 0.1 the first and last; row 1 had no choice; row 2: of 0.2 0.2 0.2 0.2 0.2 any three are the
  // best.
  const Owned p(3, 5, {0.5, 0.3, 0.1, 0.1, 0, 0.4, 0.6, 0, 0, 0, 0.2, 0.2, 0.2, 0.2, 0.2});
  const ops::SelectionQuality q = ops::selection_quality(Exec(2), visible, p, selected);
  EXPECT_EQ(q.keys, 5);
  EXPECT_EQ(q.shared, 4);
  EXPECT_NEAR(q.covered, 0.6 + 0.6, 1e-6);
  EXPECT_NEAR(q.best, 0.8 + 0.6, 1e-6);
  EXPECT_NEAR(q.coverage(), 1.2 / 1.4, 1e-6);
  EXPECT_NEAR(q.recall(), 0.8, 1e-9);
}

struct Divergence {
  double loss;
  Owned dq, dk, dw;
};
Divergence divergence(const IndexerCase& c, const OwnedLists& lists, const Owned& p, float scale, int threads = 1) {
  Arena scratch(size_t{64} << 20);
  Divergence r{0, random(c.queries, c.heads * c.dim, 9, 1.0, c.t), random(c.keys, c.dim, 9, 1.0, c.t),
               random(c.queries, c.heads, 9)};
  r.loss = ops::indexer_kl(Exec(threads), c.shape(), {c.q, c.k, c.w}, lists, p, scale, {r.dq, r.dk, r.dw}, scratch);
  EXPECT_EQ(scratch.used(), 0u);
  return r;
}

// Random distributions over the lists, some of their probabilities zero.
Owned distributions(const KeyLists& lists, int64_t width) {
  Owned p(static_cast<int64_t>(lists.size()), width);
  for (size_t t = 0; t < lists.size(); ++t) {
    const Rng rng(6, t);
    std::vector<double> e;
    for (size_t j = 0; j < lists[t].size(); ++j) e.push_back(j % 5 == 4 ? 0 : std::exp(rng.normal(j)));
    const double total = std::accumulate(e.begin(), e.end(), 0.0);
    for (size_t j = 0; j < e.size(); ++j)
      p.set(static_cast<int64_t>(t) * width + static_cast<int64_t>(j), e[j] / total);
  }
  return p;
}

TEST(Indexer, DivergenceAndGradients) {
  for (const auto& [queries, keys, heads, dim, most] : std::vector<std::array<int64_t, 5>>{
           {1, 1, 1, 1, 1}, {20, 20, 3, 9, 20}, {33, 70, 5, 16, 12}, {7, 150, 2, 33, 90}}) {
    for (DType t : {f32_t, bf16_t}) {
      const IndexerCase c(queries, keys, heads, dim, t);
      KeyLists lists = random_lists(queries, keys, 1, most, 8);
      if (queries > 10) lists[4].clear();
      const int64_t width = most + 2;
      const Owned p = distributions(lists, width);
      const Tensors<double> at = {{"q", c.q.values()}, {"k", c.k.values()}, {"w", c.w.values()}};
      const auto loss = [&](const auto& z) {
        return c.ref().divergence(z.at("q"), z.at("k"), z.at("w"), lists, p.values(), static_cast<size_t>(width));
      };
      const double scale = 0.25, want = loss(at);
      auto gradient = reference::complex_gradient(
          at, [&](const auto& z) { return scale * loss(z); }, 60);
      for (Isa isa : machine_isas()) {
        const IsaScope scope(isa);
        SCOPED_TRACE(std::string(isa_name(isa)) + " " + dtype_name(t) + " " + std::to_string(queries) + " of " +
                     std::to_string(keys));
        const Divergence got = divergence(c, OwnedLists(lists, width), p, static_cast<float>(scale));
        const double e = chain_tolerance(3, dim + most, t);
        EXPECT_NEAR(got.loss, want, 1e-5 * (1 + want));
        expect_gradient(got.dq.values(), gradient.at("q"), e, 1e-7, "dq");
        expect_gradient(got.dk.values(), gradient.at("k"), e, 1e-7, "dk");
        expect_gradient(got.dw.values(), gradient.at("w"), chain_tolerance(3, dim + most, f32_t), 1e-6, "dw");
        const Divergence threaded = divergence(c, OwnedLists(lists, width), p, static_cast<float>(scale), 3);
        EXPECT_TRUE(threaded.loss == got.loss && threaded.dq.same_bytes(got.dq) && threaded.dk.same_bytes(got.dk) &&
                    threaded.dw.same_bytes(got.dw));
      }
    }
  }
}

}  // namespace
}  // namespace birkhoff::test
