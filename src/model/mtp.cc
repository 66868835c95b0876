#include "model/mtp.h"

#include <algorithm>

#include "ops/rows/elementwise.h"
#include "ops/rows/embedding.h"
#include "ops/rows/norm.h"

namespace birkhoff::model {
namespace {

// `before`, its ids and labels one further, without the last row of each segment.
MtpRows next_rows(std::span<const int32_t> ids, std::span<const int32_t> labels, const layers::TokenContext& before) {
  const auto T = static_cast<int32_t>(ids.size());
  std::vector<int32_t> moved(ids.size());  // where a row is now; of a row left out, where the next kept one is
  MtpRows out;
  for (size_t s = 0; s < before.segment_start.size(); ++s) {
    const int32_t first = before.segment_start[s],
                  end = s + 1 < before.segment_start.size() ? before.segment_start[s + 1] : T;
    const auto to = static_cast<int32_t>(out.ids.size());
    for (int32_t i = first; i < end; ++i) moved[static_cast<size_t>(i)] = to + (i - first);
    if (end - first < 2) continue;
    out.segment_start.push_back(to);
    out.runs.push_back({first, to, end - first - 1});
    for (auto i = static_cast<size_t>(first); i + 1 < static_cast<size_t>(end); ++i) {
      out.ids.push_back(ids[i + 1]);
      out.labels.push_back(labels[i + 1]);
      out.position.push_back(before.position[i]);
      out.first_key.push_back(moved[static_cast<size_t>(before.first_key[i])]);
    }
  }
  const auto kept = static_cast<int32_t>(out.ids.size());
  for (size_t s = 0; s < before.sequence_start.size(); ++s) {  // a sequence that keeps no row is none
    const auto start = [&](size_t i) {
      return i < before.sequence_start.size() ? moved[static_cast<size_t>(before.sequence_start[i])] : kept;
    };
    if (start(s) < start(s + 1)) out.sequence_start.push_back(start(s));
  }
  return out;
}

}  // namespace

std::vector<MtpRows> mtp_rows(std::span<const int32_t> ids, std::span<const int32_t> labels,
                              const layers::TokenContext& ctx, size_t modules) {
  std::vector<MtpRows> all;
  for (size_t k = 0; k < modules; ++k)
    all.push_back(k == 0 ? next_rows(ids, labels, ctx)
                         : next_rows(all.back().ids, all.back().labels, all.back().context()));
  return all;
}

int64_t mtp_targets(const MtpRows& rows) {
  return std::count_if(rows.labels.begin(), rows.labels.end(), [](int32_t l) { return l != kIgnoreLabel; });
}

namespace {

bool has_streams(const Model& m) { return m.residual.kind != ops::ResidualKind::plain; }

// [T, n*D] as [T*n, D].
template <class M>
M by_stream(const Model& m, M x) {
  return x.reshaped(x.rows * m.residual.streams, m.residual.dim);
}

// Calls f(rows of what the module reads, its own rows) for every run; in a dry pass for all rows at once.
template <class F>
void for_runs(const MtpTape& t, int64_t rows, F&& f) {
  if (t.rows.runs.empty()) f(int64_t{0}, int64_t{0}, rows);
  for (const MtpRows::Run& run : t.rows.runs) f(run.from, run.to, run.rows);
}

// The module's rows of what it reads, [tokens, ...] in scratch.
Mat take_rows(const StackRun& r, const MtpTape& t, CMat source) {
  const Mat own = r.scratch.mat(source.dtype, t.stack.tokens, source.cols);
  for_runs(t, own.rows, [&](int64_t from, int64_t to, int64_t rows) {
    ops::copy(r.exec, source.row_block(from, rows), own.row_block(to, rows));
  });
  return own;
}

// Adds the module's rows to the rows they came from.
void add_rows(const StackRun& r, const MtpTape& t, CMat own, Mat source) {
  for_runs(t, own.rows, [&](int64_t from, int64_t to, int64_t rows) {
    ops::add(r.exec, own.row_block(to, rows), source.row_block(from, rows));
  });
}

// A module whose rows are all left out does nothing, and no module after it has any.
size_t running(const std::vector<MtpTape>& tapes) {
  size_t n = 0;
  while (n < tapes.size() && tapes[n].stack.tokens > 0) ++n;
  return n;
}

StackRun run_of(const StackRun& r, const MtpTape& t, const layers::TokenContext& own) {
  return {r.exec, r.m, t.rows.ids.empty() ? r.ctx : own, r.scratch};
}

// embedding, source -> state that the module's block starts from.
void join(const StackRun& r, const MtpWeights& w, CMat source, MtpTape& t) {
  const Model& m = r.m;
  const float eps = m.residual.norm_eps;
  ops::rms_norm_forward(r.exec, t.embedding, w.enorm, eps, t.e_normed, t.e_rstd);
  ops::rms_norm_forward(r.exec, by_stream(m, source), w.hnorm, eps, t.h_normed, t.h_rstd);
  if (!has_streams(m)) {
    layers::linear_forward(r.exec, w.proj, t.joined, t.stack.x[0]);
    return;
  }
  Arena::Scope scope(r.scratch);
  Mat e = r.scratch.mat(m.compute, source.rows, m.residual.dim),
      h = r.scratch.mat(m.compute, t.h_normed.rows, m.residual.dim);
  layers::linear_forward(r.exec, w.e_proj, t.e_normed, e);
  layers::linear_forward(r.exec, w.h_proj, t.h_normed, h);
  ops::expand_forward(r.exec, m.residual, e, t.stack.x[0]);
  ops::add(r.exec, h, by_stream(m, t.stack.x[0]));
}

// dx of that state -> d_embedding and d_source, assigned.
void join_backward(const StackRun& r, const MtpWeights& w, CMat source, const MtpTape& t, CMat dx, Mat d_embedding,
                   Mat d_source, MtpWeights& g) {
  const Model& m = r.m;
  const int64_t T = source.rows, D = m.residual.dim;
  Arena::Scope scope(r.scratch);
  Mat de, dh;
  if (has_streams(m)) {
    de = r.scratch.mat(m.compute, T, D);
    dh = by_stream(m, d_source);
    Mat sum = r.scratch.mat(m.compute, T, D);
    ops::expand_backward(r.exec, m.residual, dx, sum);
    layers::linear_backward(r.exec, w.e_proj, t.e_normed, sum, de, g.e_proj, r.scratch);
    layers::linear_backward(r.exec, w.h_proj, t.h_normed, by_stream(m, dx), dh, g.h_proj, r.scratch);
  } else {
    Mat d_joined = r.scratch.mat(m.compute, T, 2 * D);
    layers::linear_backward(r.exec, w.proj, t.joined, dx, d_joined, g.proj, r.scratch);
    de = d_joined.col_block(0, D);
    dh = d_joined.col_block(D, D);
  }
  ops::rms_norm_backward(r.exec, t.embedding, w.enorm, t.e_rstd, de, d_embedding, g.enorm, r.scratch);
  ops::rms_norm_backward(r.exec, by_stream(m, source), w.hnorm, t.h_rstd, dh, by_stream(m, d_source), g.hnorm,
                         r.scratch);
}

// What module k + 1 (from 0: k) reads.
CMat source_of(const Model& m, CMat source, const std::vector<MtpTape>& tapes, size_t k) {
  return k == 0 ? source : mtp_source(m, tapes[k - 1].stack, tapes[k - 1].hidden);
}

}  // namespace

CMat mtp_source(const Model& m, const StackTape& t, CMat hidden) { return has_streams(m) ? CMat(t.x.back()) : hidden; }

void write_mtp_source(const StackRun& r, const CachePool& caches, size_t k, CMat source) {
  for (const layers::CachedPart& part : r.ctx.parts)
    caches.mtp_source(k).write(r.exec, source.row_block(part.first, part.tokens), part.pages, part.past);
}

namespace {

void reserve_module(Arena& arena, const Model& m, size_t k, int64_t tokens, StackTape::Keep keep, Recompute policy,
                    MtpTape& t) {
  const int64_t D = m.config.hidden_size, rows = tokens * m.residual.streams;
  reserve_stack(arena, m, {m.config.num_hidden_layers + static_cast<int64_t>(k), 1}, tokens, keep, policy, t.stack);
  t.embedding = arena.mat(m.compute, tokens, D);
  if (has_streams(m)) {
    t.e_normed = arena.mat(m.compute, tokens, D);
    t.h_normed = arena.mat(m.compute, rows, D);
  } else {
    t.joined = arena.mat(m.compute, tokens, 2 * D);
    t.e_normed = t.joined.col_block(0, D);
    t.h_normed = t.joined.col_block(D, D);
  }
  t.e_rstd = arena.mat(f32_t, tokens, 1);
  t.h_rstd = arena.mat(f32_t, rows, 1);
  t.hidden = arena.mat(m.compute, tokens, D);
  t.final_rstd = arena.mat(f32_t, tokens, 1);
}

}  // namespace

std::vector<MtpTape> reserve_mtp(Arena& arena, const Model& m, std::vector<MtpRows> rows, Recompute policy) {
  BK_CHECK_EQ(rows.size(), m.weights.mtp.size());
  std::vector<MtpTape> tapes(rows.size());
  for (size_t k = 0; k < tapes.size(); ++k) {
    tapes[k].rows = std::move(rows[k]);
    reserve_module(arena, m, k, tapes[k].rows.tokens(), StackTape::Keep::for_backward, policy, tapes[k]);
    for (LayerTape& layer : tapes[k].stack.layers)
      if (auto* moe = std::get_if<layers::Moe::Saved>(&layer.ffn); moe && tapes[k].stack.tokens == 0)
        std::fill(moe->routing.count.begin(), moe->routing.count.end(), 0);
  }
  return tapes;
}

std::vector<MtpTape> reserve_mtp(Arena& arena, const Model& m, int64_t tokens, Recompute policy) {
  std::vector<MtpTape> tapes(m.weights.mtp.size());
  for (size_t k = 0; k < tapes.size(); ++k)
    reserve_module(arena, m, k, tokens, StackTape::Keep::for_backward, policy, tapes[k]);
  return tapes;
}

MtpTape reserve_mtp_cached(Arena& arena, const Model& m, size_t k, int64_t tokens) {
  MtpTape tape;
  reserve_module(arena, m, k, tokens, StackTape::Keep::cached, Recompute::none, tape);
  return tape;
}

namespace {

// The joined state -> t.hidden.
void run_block(const StackRun& r, const MtpWeights& w, MtpTape& t, const CachePool* caches = nullptr) {
  forward_stack(r, w.hc_head, t.stack, caches);
  ops::rms_norm_forward(r.exec, t.stack.h, w.norm, r.m.residual.norm_eps, t.hidden, t.final_rstd);
}

// Rows of what module k reads: of the tokens before those of the parts.
void read_sources(const StackRun& r, const ops::PagedRows& rows, Mat out) {
  for (const layers::CachedPart& part : r.ctx.parts) {
    const int64_t none = part.past == 0 ? 1 : 0;  // before the first token
    if (none) ops::zero(r.exec, out.row_block(part.first, 1));
    rows.read(r.exec, part.pages, out.row_block(part.first + none, part.tokens - none), part.past - 1 + none);
  }
}

}  // namespace

void forward_mtp(const StackRun& r, std::span<const int32_t> ids, CMat source, std::vector<MtpTape>& tapes) {
  const Model& m = r.m;
  for (size_t k = 0; k < running(tapes); ++k) {
    MtpTape& t = tapes[k];
    const layers::TokenContext own = t.rows.context();
    const StackRun run = run_of(r, t, own);
    m.embed(r.exec, r.exec.dry() ? ids : std::span<const int32_t>(t.rows.ids), t.embedding);
    {
      Arena::Scope scope(r.scratch);
      join(run, m.weights.mtp[k], take_rows(r, t, source_of(m, source, tapes, k)), t);
    }
    run_block(run, m.weights.mtp[k], t);
  }
}

void forward_mtp_cached(const StackRun& r, size_t k, std::span<const int32_t> ids, MtpTape& t,
                        const CachePool& caches) {
  BK_CHECK_EQ(static_cast<int64_t>(ids.size()), t.stack.tokens);
  BK_CHECK_EQ(r.ctx.tokens(), t.stack.tokens);
  layers::TokenContext tokens = r.ctx;
  tokens.token_id = ids;
  const StackRun run{r.exec, r.m, tokens, r.scratch};
  r.m.embed(r.exec, ids, t.embedding);
  {
    Arena::Scope scope(r.scratch);
    const Mat source = r.scratch.mat(r.m.compute, t.stack.tokens, caches.mtp_source(k).cols());
    read_sources(r, caches.mtp_source(k), source);
    join(run, r.m.weights.mtp[k], source, t);
  }
  run_block(run, r.m.weights.mtp[k], t, &caches);
  if (k + 1 < caches.predictors()) write_mtp_source(r, caches, k + 1, mtp_source(r.m, t.stack, t.hidden));
}

std::vector<ops::LossSums> backward_mtp(const StackRun& r, CMat source, std::vector<MtpTape>& tapes,
                                        std::span<const float> scale, LayerLosses& losses, Mat d_source,
                                        Weights& grads) {
  const Model& m = r.m;
  const int64_t D = m.config.hidden_size, T = source.rows, wide = m.residual.streams * D;
  BK_CHECK_EQ(scale.size(), tapes.size());
  std::vector<ops::LossSums> sums(tapes.size());
  Arena::Scope whole(r.scratch);
  const Mat all_d_h = r.scratch.mat(m.compute, T, D), all_dx = r.scratch.mat(m.compute, T, wide),
            all_d_source = r.scratch.mat(m.compute, T, d_source.cols);
  const size_t modules = running(tapes);
  for (size_t k = modules; k-- > 0;) {
    MtpTape& t = tapes[k];
    const MtpWeights& w = m.weights.mtp[k];
    MtpWeights& g = grads.mtp[k];
    const layers::TokenContext own = t.rows.context();
    const StackRun run = run_of(r, t, own);
    const int64_t rows = t.stack.tokens;
    const Mat d_h = all_d_h.row_block(0, rows), dx = all_dx.row_block(0, rows);
    const bool followed = k + 1 < modules;  // then the next module's rows ask something of this one's output
    const CMat d_later = followed ? CMat(all_d_source.row_block(0, tapes[k + 1].stack.tokens)) : CMat{};
    const std::span<const int32_t> labels = r.exec.dry() ? r.ctx.position : std::span<const int32_t>(t.rows.labels);
    sums[k] = ops::cross_entropy_backward(r.exec, t.hidden, {m.weights.head.forward, m.weights.head.backward}, labels,
                                          {scale[k]}, d_h, grads.head.w, r.scratch);
    if (followed && !has_streams(m)) add_rows(r, tapes[k + 1], d_later, d_h);
    if (followed && has_streams(m)) {
      ops::zero(r.exec, dx);
      add_rows(r, tapes[k + 1], d_later, dx);
    }
    ops::rms_norm_backward(r.exec, t.stack.h, w.norm, t.final_rstd, d_h, d_h, g.norm, r.scratch);
    backward_stack(run, w.hc_head, t.stack, {d_h, dx, followed && has_streams(m)}, losses, grads, g.hc_head);
    Arena::Scope scope(r.scratch);
    join_backward(run, w, take_rows(r, t, source_of(m, source, tapes, k)), t, dx, d_h, all_d_source.row_block(0, rows),
                  g);
    ops::embedding_backward(r.exec, r.exec.dry() ? r.ctx.position : std::span<const int32_t>(t.rows.ids), d_h,
                            grads.embed);
  }
  if (modules) add_rows(r, tapes[0], all_d_source.row_block(0, tapes[0].stack.tokens), d_source);
  return sums;
}

}  // namespace birkhoff::model
