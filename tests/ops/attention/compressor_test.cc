#include "ops/attention/compressor.h"

#include "reference/compressor.h"
#include "support/layer_case.h"
#include "support/matrix.h"
#include "support/places.h"

namespace birkhoff::test {
namespace {

using ops::CompressorShape;
using ops::CompressorWindow;

struct Plan {
  Arena arena{size_t{1} << 20};
  ops::CompressorPlan p;
  std::vector<CompressorWindow> windows;
  Plan(const CompressorShape& s, const std::vector<int32_t>& starts, int64_t tokens)
      : p(ops::CompressorPlan::take(arena, s, 0, tokens)) {
    ops::plan_documents(s, Packed(tokens, starts).first_key, p);
    windows.assign(p.windows.begin(), p.windows.end());
  }
};

std::vector<CompressorWindow> windows_of(const CompressorShape& s, const std::vector<int32_t>& starts, int64_t tokens) {
  return Plan(s, starts, tokens).windows;
}

// [k | z] of every row.
std::vector<double> half(const Owned& kz, int64_t rows, int64_t cols, int64_t first) {
  std::vector<double> v;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) v.push_back(kz.at(r, first + c));
  return v;
}

struct CompressorResult {
  Owned entries, d_kz, d_ape;
};
CompressorResult run(const CompressorShape& s, const std::vector<CompressorWindow>& w, const Owned& kz,
                     const Owned& ape, const Owned& cotangent, int threads) {
  const Exec exec(threads);
  const auto n = static_cast<int64_t>(w.size());
  CompressorResult r{random(n, s.dim, 5), random(kz.size() / (2 * s.row_cols()), 2 * s.row_cols(), 6),
                     random(s.ratio, s.row_cols(), 7)};  // old values
  ops::compress_forward(exec, s, w, kz, ape, r.entries);
  ops::compress_backward(exec, s, w, kz, ape, cotangent, r.d_kz, r.d_ape);
  return r;
}

void check(const CompressorShape& s, int64_t tokens, const std::vector<int32_t>& starts, double sd = 1) {
  SCOPED_TRACE("dim " + std::to_string(s.dim) + " ratio " + std::to_string(s.ratio) + (s.overlap ? " overlap" : "") +
               " tokens " + std::to_string(tokens));
  const int64_t C = s.row_cols();
  const auto w = windows_of(s, starts, tokens);
  const Owned kz = random(tokens, 2 * C, 1, sd), ape = random(s.ratio, C, 2, sd),
              cotangent = random(static_cast<int64_t>(w.size()), s.dim, 3);
  const reference::Compressor spec{static_cast<size_t>(s.dim), static_cast<size_t>(s.ratio), s.overlap};
  const reference::Tensors<double> values = {
      {"k", half(kz, tokens, C, 0)}, {"z", half(kz, tokens, C, C)}, {"ape", ape.values()}};
  const auto want = spec(values.at("k"), values.at("z"), values.at("ape"), starts);
  const auto gradient = reference::complex_gradient(values, [&](const auto& v) {
    return reference::dot(cotangent.values(), spec(v.at("k"), v.at("z"), v.at("ape"), starts));
  });
  // Weights carry the error of exp's argument, |z| < 8 sd; an entry is a weighted mean of k.
  const double e = (16 + 8 * sd) * 0x1p-24 * std::sqrt(static_cast<double>(2 * s.ratio)),
               size = 1 + largest(values.at("k"));
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    SCOPED_TRACE(isa_name(isa));
    const CompressorResult got = run(s, w, kz, ape, cotangent, 1);
    expect_close(got.entries.values(), want, e * size, "entries");
    const double d = largest(cotangent.values());
    expect_close(half(got.d_kz, tokens, C, 0), gradient.at("k"), e * d, "dk");
    expect_close(half(got.d_kz, tokens, C, C), gradient.at("z"), 4 * e * d * size, "dz");
    auto want_ape = gradient.at("ape");
    const auto before = random(s.ratio, C, 7).values();
    for (size_t i = 0; i < want_ape.size(); ++i) want_ape[i] += before[i];
    expect_close(got.d_ape.values(), want_ape,
                 4 * e * d * size * (1 + std::sqrt(static_cast<double>(w.size()))) + 4 * 0x1p-24, "d_ape");
  }
}

TEST(Compressor, MatchesSpecificationWithGradients) {
  for (const bool overlap : {false, true}) {
    for (const int64_t dim : {1, 7, 8, 9, 16, 17}) check({dim, 4, overlap}, 13, {0});
    for (const int64_t ratio : {1, 2, 3, 5, 128}) check({5, ratio, overlap}, 2 * ratio + 1, {0});
    check({4, 4, overlap}, 3, {0});  // no window
    check({4, 4, overlap}, 0, {0});
    check({4, 4, overlap}, 4, {0});
    check({6, 4, overlap}, 31, {0, 3, 11, 12, 20});  // documents without, with one, with several windows
    check({6, 3, overlap}, 12, {0}, 30);             // gates that leave one row
  }
}

TEST(Compressor, WindowsOfDocuments) {
  const Plan plan({8, 4, true}, {0, 3, 11, 12}, 20);
  ASSERT_EQ(plan.windows.size(), 4u);
  const int32_t rows[] = {3, 7, 12, 16}, previous[] = {0, 1, 0, 1};
  for (size_t i = 0; i < 4; ++i)
    EXPECT_TRUE(plan.windows[i].first_row == rows[i] && plan.windows[i].has_previous == previous[i]) << i;
  EXPECT_EQ(std::vector<int32_t>(plan.p.position.begin(), plan.p.position.end()), (std::vector<int32_t>{0, 4, 0, 4}));
  const std::vector<int32_t> first = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2, 2},
                             end = {0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 4};
  EXPECT_EQ(std::vector<int32_t>(plan.p.first.begin(), plan.p.first.end()), first);
  EXPECT_EQ(std::vector<int32_t>(plan.p.end.begin(), plan.p.end.end()), end);
}

// A sequence fed in pieces, each on top of the rows the ones before left pending, has the entries of the whole.
TEST(Compressor, PiecesAreTheWhole) {
  for (const bool overlap : {false, true}) {
    const CompressorShape s{5, 4, overlap};
    const int64_t tokens = 37, C = s.row_cols();
    const Owned kz = random(tokens, 2 * C, 1), ape = random(s.ratio, C, 2);
    const auto w = windows_of(s, {0}, tokens);
    const Exec exec(1);
    Owned whole(static_cast<int64_t>(w.size()), s.dim);
    ops::compress_forward(exec, s, w, kz, ape, whole);
    for (const int64_t piece : {1, 3, 4, 7, 64}) {
      int64_t entries = 0;
      for (int64_t done = 0; done < tokens; done += piece) {
        const int64_t n = std::min(piece, tokens - done), pending = s.pending_rows(done);
        EXPECT_LE(pending, s.most_pending_rows());
        Arena arena(size_t{1} << 20);
        auto plan = ops::CompressorPlan::take(arena, s, done, n);
        ops::plan_continuation(s, done, plan);
        const auto made = static_cast<int64_t>(plan.windows.size());
        Owned part(made, s.dim);
        ops::compress_forward(exec, s, plan.windows, kz.view().row_block(done - pending, pending + n), ape, part);
        for (int64_t i = 0; i < made; ++i) {
          EXPECT_EQ(plan.position[static_cast<size_t>(i)], (entries + i) * s.ratio);
          for (int64_t c = 0; c < s.dim; ++c) EXPECT_EQ(part.at(i, c), whole.at(entries + i, c));
        }
        for (int64_t t = 0; t < n; ++t) EXPECT_EQ(plan.end[static_cast<size_t>(t)], (done + t + 1) / s.ratio);
        entries += made;
      }
      EXPECT_EQ(entries, tokens / s.ratio);
    }
  }
}

// An entry does not depend on what else is compressed in the call, nor on threads.
TEST(Compressor, NeighboursAndThreadsDoNotMatter) {
  const CompressorShape s{40, 4, true};
  const int64_t tokens = 4000, C = s.row_cols();
  const auto w = windows_of(s, {0, 1001}, tokens);
  const Owned kz = random(tokens, 2 * C, 1), ape = random(s.ratio, C, 2),
              cotangent = random(static_cast<int64_t>(w.size()), s.dim, 3);
  const CompressorResult one = run(s, w, kz, ape, cotangent, 1), three = run(s, w, kz, ape, cotangent, 3);
  EXPECT_TRUE(one.entries.same_bytes(three.entries) && one.d_kz.same_bytes(three.d_kz) &&
              one.d_ape.same_bytes(three.d_ape));
  const Exec exec(1);
  Owned alone(1, s.dim);
  ops::compress_forward(exec, s, std::span(&w[300], 1), kz, ape, alone);
  for (int64_t c = 0; c < s.dim; ++c) EXPECT_EQ(alone.at(c), one.entries.at(300, c));
}

}  // namespace
}  // namespace birkhoff::test
