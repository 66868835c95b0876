// Forward of the residual path. A task is a block of tokens that stays in the cache while it is written, projected and
// read.
#include "ops/residual/residual.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "kernels/residual/streams.h"
#include "ops/gemm/projection.h"
#include "ops/residual/residual_coefficients.h"
#include "ops/rows/elementwise.h"

namespace birkhoff::ops {
namespace {

using kernels::kMaxStreams;

int64_t logit_cols(const ResidualSpec& s) { return s.coefficients(); }

void check_site(const ResidualSpec& s, const SiteWeights& w, CMat x) {
  BK_CHECK(s.streams >= 1 && s.streams <= kMaxStreams);
  BK_CHECK_EQ(x.cols, s.streams * s.dim);
  check_shape(w.norm, 1, s.dim);
  if (s.kind == ResidualKind::mhc) check_shape(w.fn, s.coefficients(), s.streams * s.dim);
  if (s.kind == ResidualKind::hc) check_shape(w.fn, s.streams + 2, s.dim);
}

// logits = rstd * (fn x) for the rows of one block; rstd from the sums of squares of its streams.
void finish_logits(const ResidualSpec& s, const float* squares, int64_t tokens, float* logits, float* rstd) {
  const int64_t n = s.streams, m = logit_cols(s);
  for (int64_t t = 0; t < tokens; ++t) {
    if (s.kind == ResidualKind::mhc) {
      float sum = 0;
      for (int64_t k = 0; k < n; ++k) sum += squares[t * kMaxStreams + k];
      rstd[t] = 1.f / std::sqrt(sum / static_cast<float>(n * s.dim) + s.norm_eps);
      for (int64_t i = 0; i < m; ++i) logits[t * m + i] *= rstd[t];
      continue;
    }
    for (int64_t k = 0; k < n; ++k) {
      rstd[t * n + k] = 1.f / std::sqrt(squares[t * kMaxStreams + k] / static_cast<float>(s.dim) + s.norm_eps);
      for (int64_t i = 0; i < n + 2; ++i) logits[t * m + k * (n + 2) + i] *= rstd[t * n + k];
    }
  }
}

// Projection of one block of states, whose streams' sums of squares are known.
void project_block(const ResidualSpec& s, const Projection* p, CMat x, const float* squares, SiteSaved& saved,
                   int64_t first) {
  if (!p) return;
  float* logits = saved.logits.f32(first);
  p->forward(s.kind == ResidualKind::mhc ? x : x.reshaped(x.rows * s.streams, s.dim), logits);
  finish_logits(s, squares, x.rows, logits, saved.rstd.f32(first));
}

// u and its pre-norm for one block.
template <class T>
void read_block(const ResidualSpec& s, const SiteWeights& w, CMat x, SiteSaved& saved, Mat in, int64_t first) {
  const int n = static_cast<int>(s.streams);
  WorkerScratch scratch;
  float *u = scratch.take<float>(kernels::arranged_floats(s.dim)),
        *norm = scratch.take<float>(kernels::arranged_floats(s.dim));
  streams<T>().arrange(w.norm.f32(), norm, s.dim);
  const float one = 1.f;
  SiteMaps maps;
  for (int64_t t = 0; t < x.rows; ++t) {
    if (!plain(s) && t % kTokens == 0)
      site_maps(s, w, projects(s) ? saved.logits.f32(first + t) : nullptr,
                static_cast<int>(std::min<int64_t>(kTokens, x.rows - t)), kReadMaps, maps);
    const float* pre = plain(s) ? &one : maps.pre[t % kTokens];
    *saved.norm_rstd.f32(first + t) =
        streams<T>().read_norm(x.row<T>(t), pre, norm, s.norm_eps, u, in.row<T>(first + t), n, s.dim);
  }
}

// X' for one block, from the maps of the site that ends.
template <class T>
void write_block(const ResidualSpec& s, const Site& from, CMat x, CMat y, Mat out, int64_t first, float* squares) {
  const int n = static_cast<int>(s.streams);
  const float one = 1.f;
  SiteMaps maps;
  for (int64_t t = 0; t < x.rows; ++t) {
    if (!plain(s) && t % kTokens == 0)
      site_maps(s, from.w, projects(s) ? from.saved.logits.f32(first + t) : nullptr,
                static_cast<int>(std::min<int64_t>(kTokens, x.rows - t)), kWriteMaps, maps);
    const float* res = plain(s) ? &one : maps.res[t % kTokens];
    const float* post = plain(s) ? &one : maps.post[t % kTokens];
    streams<T>().write(x.row<T>(t), y.row<T>(t), res, post, out.row<T>(t), n, s.dim, squares + t * kMaxStreams);
  }
}

template <class F>
void for_blocks(const Exec& exec, int64_t tokens, F&& f) {
  exec.parallel_for((tokens + kTokenBlock - 1) / kTokenBlock,
                    [&](int64_t b) { f(b * kTokenBlock, std::min(kTokenBlock, tokens - b * kTokenBlock)); });
}

template <class T>
void collapse_block(const ResidualSpec& s, const HeadWeights& head, const Projection* p, CMat x, const float* squares,
                    HeadSaved& saved, Mat h, int64_t first) {
  const int n = static_cast<int>(s.streams);
  const std::vector<float> ones(kMaxStreams, 1.f);
  float weights[kTokens * kMaxStreams];
  if (p) p->forward(x, saved.logits.f32(first));
  for (int64_t t = 0; t < x.rows; ++t) {
    if (p && t % kTokens == 0) {
      const int count = static_cast<int>(std::min<int64_t>(kTokens, x.rows - t));
      for (int64_t i = t; i < t + count; ++i) {
        float sum = 0;
        for (int k = 0; k < n; ++k) sum += squares[i * kMaxStreams + k];
        float* rstd = saved.rstd.f32(first + i);
        *rstd = 1.f / std::sqrt(sum / static_cast<float>(n * s.dim) + s.norm_eps);
        for (int k = 0; k < n; ++k) saved.logits.f32(first + i)[k] *= *rstd;
      }
      head_weights(s, head, saved.logits.f32(first + t), count, weights);
    }
    streams<T>().weighted_sum(x.row<T>(t), p ? weights + t % kTokens * n : ones.data(), h.row<T>(first + t), n, s.dim);
  }
}

}  // namespace

SiteSaved SiteSaved::take(Arena& a, const ResidualSpec& s, int64_t tokens) {
  SiteSaved r;
  if (projects(s)) {
    r.logits = a.mat(f32_t, tokens, logit_cols(s));
    r.rstd = a.mat(f32_t, tokens, s.kind == ResidualKind::mhc ? 1 : s.streams);
  }
  r.norm_rstd = a.mat(f32_t, tokens, 1);
  return r;
}

HeadSaved HeadSaved::take(Arena& a, const ResidualSpec& s, int64_t tokens) {
  return {a.mat(f32_t, tokens, s.streams), a.mat(f32_t, tokens, 1)};
}

void expand_forward(const Exec& exec, const ResidualSpec& s, CMat embedding, Mat x) {
  check_shape(x, embedding.rows, s.streams * s.dim);
  for (int64_t k = 0; k < s.streams; ++k) copy(exec, embedding, x.col_block(k * s.dim, s.dim));
}

void expand_backward(const Exec& exec, const ResidualSpec& s, CMat dx, Mat d_embedding) {
  check_shape(d_embedding, dx.rows, s.dim);
  BK_CHECK(dx.dtype == d_embedding.dtype);
  if (exec.dry()) return;
  Exec::Span span(exec, Work::residual);
  const std::vector<float> ones(kMaxStreams, 1.f);
  for_blocks(exec, dx.rows, [&](int64_t first, int64_t count) {
    for (int64_t t = first; t < first + count; ++t) {
      if (dx.dtype == f32_t)
        streams<float>().weighted_sum(dx.f32(t), ones.data(), d_embedding.f32(t), static_cast<int>(s.streams), s.dim);
      else
        streams<bf16>().weighted_sum(dx.b16(t), ones.data(), d_embedding.b16(t), static_cast<int>(s.streams), s.dim);
    }
  });
}

namespace {

// The coefficients of a site from its state x, and its input. arrive<T>(first, count, squares) brings a block of x into
// the cache, and gives the sums of squares of its streams.
template <class Arrive>
void read_site(const Exec& exec, const ResidualSpec& s, const SiteWeights& w, CMat x, SiteSaved& saved, Mat in,
               Arena& scratch, Arrive&& arrive) {
  check_site(s, w, x);
  check_shape(in, x.rows, s.dim);
  BK_CHECK(x.dtype == in.dtype && x.contiguous());
  Exec::Span span(exec, Work::residual);
  Arena::Scope scope(scratch);
  std::optional<Projection> p;
  if (projects(s)) p.emplace(exec, projected_weights(exec, s, w, scratch), x.dtype, false, scratch);
  const auto run = [&]<class T>(T) {
    for_blocks(exec, x.rows, [&](int64_t first, int64_t count) {
      float squares[kTokenBlock * kMaxStreams];
      arrive.template operator()<T>(first, count, squares);
      const CMat block = x.row_block(first, count);
      project_block(s, p ? &*p : nullptr, block, squares, saved, first);
      read_block<T>(s, w, block, saved, in, first);
    });
  };
  x.dtype == f32_t ? run(float{}) : run(bf16{});
}

}  // namespace

void site_open(const Exec& exec, const ResidualSpec& s, const SiteWeights& w, CMat x, SiteSaved& saved, Mat in,
               Arena& scratch) {
  read_site(exec, s, w, x, saved, in, scratch, [&]<class T>(int64_t first, int64_t count, float* squares) {
    if (!projects(s)) return;
    for (int64_t t = 0; t < count; ++t)
      streams<T>().squares(x.row<T>(first + t), static_cast<int>(s.streams), s.dim, squares + t * kMaxStreams);
  });
}

void site_advance(const Exec& exec, const ResidualSpec& s, const SiteTensors& from, Mat x_next, const SiteWeights& to,
                  SiteSaved& to_saved, Mat in, Arena& scratch) {
  const CMat x = from.x, y = from.y;
  check_site(s, from.site.w, x);
  check_shape(y, x.rows, s.dim);
  check_shape(x_next, x.rows, x.cols);
  BK_CHECK(x.dtype == y.dtype && x.dtype == x_next.dtype && x.contiguous());
  read_site(exec, s, to, x_next, to_saved, in, scratch, [&]<class T>(int64_t first, int64_t count, float* squares) {
    write_block<T>(s, from.site, x.row_block(first, count), y.row_block(first, count), x_next.row_block(first, count),
                   first, squares);
  });
}

void site_close(const Exec& exec, const ResidualSpec& s, const SiteTensors& last, Mat x_end, const HeadWeights& head,
                HeadSaved& head_saved, Mat h, Arena& scratch) {
  const CMat x = last.x, y = last.y;
  check_site(s, last.site.w, x);
  check_shape(h, x.rows, s.dim);
  Exec::Span span(exec, Work::residual);
  Arena::Scope scope(scratch);
  const bool learned = !head.fn.empty();
  if (learned) check_shape(head.fn, s.streams, s.streams * s.dim);
  std::optional<Projection> p;
  if (learned) p.emplace(exec, head.fn, x.dtype, false, scratch);
  const auto run = [&]<class T>(T) {
    for_blocks(exec, x.rows, [&](int64_t first, int64_t count) {
      float squares[kTokenBlock * kMaxStreams];
      const Mat end = x_end.row_block(first, count);
      write_block<T>(s, last.site, x.row_block(first, count), y.row_block(first, count), end, first, squares);
      if (h.data == x_end.data) return;  // plain: the state is the hidden state
      collapse_block<T>(s, head, learned ? &*p : nullptr, end, squares, head_saved, h, first);
    });
  };
  x.dtype == f32_t ? run(float{}) : run(bf16{});
}

void site_coefficients(const Exec& exec, const ResidualSpec& s, const SiteWeights& w, const SiteSaved& saved, Mat pre,
                       Mat post, Mat res) {
  const int64_t n = s.streams, tokens = pre.rows;
  check_shape(res, tokens, n * n);
  if (exec.dry()) return;
  exec.parallel_for((tokens + kTokens - 1) / kTokens, [&](int64_t b) {
    const int64_t first = b * kTokens;
    const int count = static_cast<int>(std::min<int64_t>(kTokens, tokens - first));
    SiteMaps maps;
    if (plain(s)) {
      for (int t = 0; t < count; ++t) maps.pre[t][0] = maps.post[t][0] = maps.res[t][0] = 1.f;
    } else {
      site_maps(s, w, projects(s) ? saved.logits.f32(first) : nullptr, count, kAllMaps, maps);
    }
    for (int t = 0; t < count; ++t) {
      std::copy_n(maps.pre[t], n, pre.f32(first + t));
      std::copy_n(maps.post[t], n, post.f32(first + t));
      std::copy_n(maps.res[t], n * n, res.f32(first + t));
    }
  });
}

void head_coefficients(const Exec& exec, const ResidualSpec& s, const HeadWeights& head, const HeadSaved& saved,
                       Mat weights) {
  check_shape(weights, saved.logits.rows, s.streams);
  if (exec.dry()) return;
  exec.parallel_for((weights.rows + kTokens - 1) / kTokens, [&](int64_t b) {
    const int64_t first = b * kTokens;
    head_weights(s, head, saved.logits.f32(first), static_cast<int>(std::min<int64_t>(kTokens, weights.rows - first)),
                 weights.f32(first));
  });
}

}  // namespace birkhoff::ops
