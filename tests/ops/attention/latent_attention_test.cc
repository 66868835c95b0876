#include "ops/attention/latent_attention.h"

#include "core/error.h"
#include "kernels/attention/latent_attention.h"
#include "ops/attention/paged_rows.h"
#include "reference/sparse_attention.h"
#include "support/layer_case.h"

namespace birkhoff::test {
namespace {

struct LatentCase {
  ops::AttentionShape shape;
  std::vector<int32_t> first;  // of queries
  DType t;
  Owned q, cache;
  int64_t rows;
  std::vector<int32_t> pages;  // of the cache; empty: it is in order

  LatentCase(int64_t heads, int64_t qk, int64_t vd, std::vector<int32_t> first_key, int64_t positions, DType type,
             double sd = 1.0)
      : shape{heads, 1, qk, vd, static_cast<float>(1 / std::sqrt(static_cast<double>(qk)))},
        first(std::move(first_key)),
        t(type),
        q(random(queries(), heads * qk, 1, sd, type)),
        cache(random(positions + 5, qk, 2, sd, type)),
        rows(positions) {}
  int64_t queries() const { return static_cast<int64_t>(first.size()); }
  int64_t positions() const { return rows; }
  ops::KeyRows latents() const {
    const CMat all = cache;
    if (pages.empty()) return all.row_block(0, rows);
    const int64_t page_bytes = kernels::kPageRows * all.cols * dtype_bytes(t);
    return {all.row_block(0, kernels::kPageRows), pages.data(), page_bytes, rows};
  }
  Owned run(int threads) const {
    Arena scratch(size_t{64} << 20);
    Owned o = random(queries(), shape.heads * shape.v_dim, 7, 1.0, t);
    ops::latent_attention_forward(Exec(threads), shape, q, latents(), first, o, scratch);
    EXPECT_EQ(scratch.used(), 0u);
    return o;
  }
  // Query t alone.
  LatentCase only(int64_t query) const {
    LatentCase one(shape.heads, shape.qk_dim, shape.v_dim, {first[static_cast<size_t>(query)]},
                   positions() - queries() + query + 1, t);
    for (int64_t i = 0; i < one.q.size(); ++i) one.q.set(i, q.at(query * one.q.size() + i));
    for (int64_t i = 0; i < one.positions() * shape.qk_dim; ++i) one.cache.set(i, cache.at(i));
    return one;
  }
};

std::vector<int32_t> zeros(int64_t queries) { return std::vector<int32_t>(static_cast<size_t>(queries), 0); }

void expect_reference(const LatentCase& c) {
  const auto n = [](int64_t i) { return static_cast<size_t>(i); };
  reference::KeyLists lists;
  for (int64_t t = 0; t < c.queries(); ++t) {
    lists.emplace_back();
    for (int32_t key = c.first[n(t)]; key <= c.positions() - c.queries() + t; ++key) lists.back().push_back(key);
  }
  const std::vector<double> q = c.q.values(), k = c.cache.values();
  std::vector<double> v;
  for (int64_t r = 0; r < c.positions(); ++r)
    for (int64_t i = 0; i < c.shape.v_dim; ++i) v.push_back(k[n(r * c.shape.qk_dim + i)]);
  const reference::SparseAttention ref{
      n(c.shape.heads), 1, n(c.shape.qk_dim), n(c.shape.v_dim), static_cast<double>(c.shape.scale), lists};
  const auto want = ref.forward(q, k, v, std::vector<double>());
  double logit = 0;
  for (size_t t = 0; t < lists.size(); ++t)
    for (const int32_t key : lists[t])
      for (size_t h = 0; h < ref.heads; ++h) logit = std::max(logit, std::abs(ref.logit(q, k, t, h, key)));
  const double tolerance = chain_tolerance(3, c.shape.qk_dim + c.positions(), c.t) + 4 * 0x1p-24 * logit;
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    expect_close(c.run(2).values(), want.o, tolerance * largest(k), isa_name(isa));
  }
}

constexpr int64_t kPiece = kernels::kLatentPiece;

TEST(LatentAttention, IsTheSoftmaxOverWhatAQuerySees) {
  for (DType t : {f32_t, bf16_t}) {
    for (const int64_t positions : {int64_t{1}, int64_t{17}, kPiece - 1, kPiece, kPiece + 1, 3 * kPiece + 70}) {
      SCOPED_TRACE(std::to_string(positions) + " positions");
      expect_reference(LatentCase(3, 24, 16, {0}, positions, t));
      expect_reference(LatentCase(16, 96, 64, {0}, positions, t));  // of a depth that is read where it lies
    }
    expect_reference(LatentCase(5, 33, 17, zeros(40), kPiece + 20, t));      // queries on both sides of a border
    expect_reference(LatentCase(2, 24, 24, {3, 3, 290, 290, 291}, 295, t));  // of several documents
    expect_reference(LatentCase(150, 16, 8, {0, 0}, 2 * kPiece + 3, t));     // more columns than a call takes
    expect_reference(LatentCase(2, 16, 8, {0}, 2 * kPiece + 9, t, 8.0));     // scores of hundreds
  }
}

TEST(LatentAttention, AQuerysBitsAreItsOwn) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    SCOPED_TRACE(isa_name(isa));
    for (DType t : {f32_t, bf16_t}) {
      std::vector<int32_t> first = zeros(30);
      std::fill(first.begin() + 20, first.end(), 11);
      const LatentCase all(7, 64, 40, first, 2 * kPiece + 15, t);
      const Owned whole = all.run(1);
      for (int threads : {2, 3}) EXPECT_TRUE(all.run(threads).same_bytes(whole)) << threads << " threads";
      for (const int64_t query : {int64_t{0}, int64_t{14}, int64_t{19}, int64_t{20}, int64_t{29}}) {
        const Owned alone = all.only(query).run(2);
        for (int64_t i = 0; i < alone.size(); ++i)
          ASSERT_EQ(alone.at(i), whole.at(query * alone.size() + i)) << "query " << query;
      }
    }
  }
}

TEST(LatentAttention, WhereRowsLieDoesNotMatter) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    for (DType t : {f32_t, bf16_t}) {
      std::vector<int32_t> first = zeros(3);
      first[2] = 70;
      const LatentCase flat(16, 64, 32, first, kPiece + 100, t);
      LatentCase paged = flat;
      const int64_t pages = (flat.positions() + 63) / 64;
      paged.cache = random(pages * 64, 64, 9, 1.0, t);
      for (int64_t i = 0; i < pages; ++i) paged.pages.push_back(static_cast<int32_t>((i * 5 + 2) % pages));
      for (int64_t i = 0; i < flat.positions(); ++i)
        for (int64_t c = 0; c < 64; ++c)
          paged.cache.set((paged.pages[static_cast<size_t>(i / 64)] * 64 + i % 64) * 64 + c, flat.cache.at(i * 64 + c));
      EXPECT_TRUE(paged.run(2).same_bytes(flat.run(1))) << isa_name(isa);
    }
  }
}

// Rows of 8 bits are read a piece at a time: the bits of their numbers.
TEST(LatentAttention, EncodedRows) {
  const int64_t positions = 2 * kPiece + 37;
  for (DType t : {f32_t, bf16_t}) {
    LatentCase c(16, 96, 64, {0, 0, 70}, positions, t);
    ops::PageMemory memory{ops::CacheType::int8};
    const ops::PagedRows rows(memory, {64, 32});
    Arena bytes(static_cast<size_t>(memory.page_bytes * 10)), scratch(size_t{64} << 20);
    memory.base = bytes.base();
    const std::vector<int32_t> pages = {3, 1, 9, 0, 8, 2, 5, 7, 4};
    rows.write(Exec(1), c.cache.view().row_block(0, positions), pages, 0);
    Owned o(3, 16 * 64, t);
    ops::latent_attention_forward(Exec(2), c.shape, c.q, rows.encoded_view(pages, positions, t), c.first, o, scratch);
    rows.read(Exec(1), pages, c.cache.view().row_block(0, positions));
    EXPECT_TRUE(o.same_bytes(c.run(1)));
  }
}

// Groups of queries whose pieces are held at a time: with so many positions each has a few.
TEST(LatentAttention, ManyQueriesInGroups) {
  const LatentCase wide(16, 512, 512, zeros(200), 4 * kPiece, bf16_t);
  const Owned whole = wide.run(2);
  for (const int64_t query : {int64_t{0}, int64_t{127}, int64_t{128}, int64_t{199}}) {
    const Owned alone = wide.only(query).run(1);
    for (int64_t i = 0; i < alone.size(); ++i) ASSERT_EQ(alone.at(i), whole.at(query * alone.size() + i)) << query;
  }
}

TEST(LatentAttention, ChecksWhatItIsGiven) {
  for (const int32_t first : {-1, 4}) EXPECT_THROW(LatentCase(2, 8, 8, {first}, 4, f32_t).run(1), ContractViolation);
  EXPECT_THROW(LatentCase(2, 8, 9, {0}, 4, f32_t).run(1), ContractViolation) << "values are columns of the keys";
  LatentCase(2, 8, 8, {}, 4, f32_t).run(1);
}

}  // namespace
}  // namespace birkhoff::test
