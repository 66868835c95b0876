// Backward of the residual path, a block of tokens at a time.
#include "ops/residual/residual_backward.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "kernels/residual/streams.h"
#include "ops/gemm/projection.h"
#include "ops/gemm/weight_grad.h"
#include "ops/residual/residual_coefficients.h"
#include "ops/rows/elementwise.h"

namespace birkhoff::ops {
namespace {

using kernels::kMaxStreams;
using kernels::StreamGradients;

constexpr int64_t kGradientTasks = 16;  // at most: each has partial sums of its own for the parameters

// Blocks of one task; a function of the number of tokens alone.
int64_t task_tokens(int64_t tokens) {
  return std::max<int64_t>(1, (tokens + kGradientTasks * kTokenBlock - 1) / (kGradientTasks * kTokenBlock)) *
         kTokenBlock;
}

// Sums over the tokens of one task, a row each: pre-norm weight, static parts, scales, projection.
struct Partials {
  Mat norm, base, scale, fn;
  Partials(Arena& a, const ResidualSpec& s, int64_t tasks, int64_t fn_elements)
      : norm(a.mat(f32_t, tasks, s.dim)),
        base(a.mat(f32_t, tasks, std::max<int64_t>(1, s.coefficients()))),
        scale(a.mat(f32_t, tasks, 4)),
        fn(a.mat(f32_t, tasks, fn_elements)) {}
  void clear(int64_t task) const {
    for (const Mat& m : {norm, base, scale}) std::fill_n(m.f32(task), m.cols, 0.f);
  }
};

// Asks for a row that the next block will read. Blocks of a worker mostly follow each other, and the passes over a
// block that is already in the cache leave the memory idle.
inline void bring_nearer(CMat m, int64_t row) {
  if (row >= m.rows) return;
  const char* p = static_cast<const char*>(m.data) + row * m.stride * static_cast<int64_t>(dtype_bytes(m.dtype));
  for (int64_t i = 0; i < m.cols * static_cast<int64_t>(dtype_bytes(m.dtype)); i += 64) __builtin_prefetch(p + i, 0, 2);
}

// What a state was projected onto: `groups` parts of a row, `width` wide, each over its own root mean square.
struct Projected {
  CMat logits, rstd;
  int64_t groups, width;
};

// d_logits -> dq = rstd d_logits in the states' type, and per stream the factor of x from the root mean square: rstd^2
// (d_logits . q) / width.
void scale_rows(const ResidualSpec& s, const Projected& of, int64_t first, int tokens, const float* d_logits, Mat dq,
                float* correction) {
  const auto& [logits, rstd, groups, width] = of;
  const int64_t each = logits.cols / groups;
  for (int t = 0; t < tokens; ++t) {
    for (int64_t k = 0; k < groups; ++k) {
      const float *d = d_logits + t * logits.cols + k * each, *q = logits.f32(first + t) + k * each,
                  r = rstd.f32(first + t)[k];
      float dot = 0;
      for (int64_t i = 0; i < each; ++i) dot += d[i] * q[i];
      const int64_t at = t * logits.cols + k * each;
      for (int64_t i = 0; i < each; ++i) {
        if (dq.dtype == f32_t)
          dq.f32()[at + i] = d[i] * r;
        else
          dq.b16()[at + i] = to_bf16(d[i] * r);
      }
      const float c = r * r * dot / static_cast<float>(width);
      if (groups > 1)
        correction[t * kMaxStreams + k] = c;
      else
        std::fill_n(correction + t * kMaxStreams, s.streams, c);
    }
  }
}

struct Retreat {
  const ResidualSpec& s;
  const SiteTensors& at;
  const SiteCotangents& d;
  const std::optional<SiteWriteGradient>& before;
  const Projection* projection;
  const Partials& partial;

  bool per_stream() const { return s.kind == ResidualKind::hc; }

  // Maps of 16 tokens from `first`.
  void maps(const Site& of, int64_t first, int count, Wanted wanted, SiteMaps& m) const {
    site_maps(s, of.w, projects(s) ? of.saved.logits.f32(first) : nullptr, count, wanted, m);
  }
  Projected projected() const {
    const SiteSaved& saved = at.site.saved;
    return per_stream() ? Projected{saved.logits, saved.rstd, s.streams, s.dim}
                        : Projected{saved.logits, saved.rstd, 1, s.streams * s.dim};
  }

  template <class T>
  void task(int64_t index) const {
    const int64_t tokens = task_tokens(at.x.rows), end = std::min(at.x.rows, (index + 1) * tokens);
    partial.clear(index);
    for (int64_t first = index * tokens; first < end; first += kTokenBlock)
      block<T>(first, std::min(kTokenBlock, end - first), index, first == index * tokens);
  }

  // Gradients of the maps and of the sub-layer's input -> du; dq and correction where the maps depend on the state.
  template <class T>
  void coefficients(int64_t first, int64_t count, int64_t index, T* du, Mat dq, float* correction,
                    std::vector<SiteMaps>& maps_at) const {
    const int n = static_cast<int>(s.streams);
    const float one = 1.f;
    WorkerScratch scratch;
    float* d_logits = projection ? scratch.take<float>(kTokens * s.coefficients()) : nullptr;
    const int64_t arranged = kernels::arranged_floats(s.dim);
    float *norm = scratch.take<float>(arranged), *d_norm = scratch.take<float>(arranged),
          *u = scratch.take<float>(arranged);
    streams<T>().arrange(at.site.w.norm.f32(), norm, s.dim);
    std::fill_n(d_norm, arranged, 0.f);
    for (int64_t t0 = 0; t0 < count; t0 += kTokens) {
      const int tokens = static_cast<int>(std::min<int64_t>(kTokens, count - t0));
      SiteMaps& mm = maps_at[static_cast<size_t>(t0 / kTokens)];
      if (!plain(s)) maps(at.site, first + t0, tokens, kReadMaps, mm);
      StreamGradients grads[kTokens];
      for (int t = 0; t < tokens; ++t) {
        const int64_t row = first + t0 + t;
        streams<T>().read_norm(at.x.row<T>(row), plain(s) ? &one : mm.pre[t], nullptr, 0, u, nullptr, n, s.dim);
        streams<T>().dots(at.x.row<T>(row), at.y.row<T>(row), d.dx_next.row<T>(row), d.d_in.row<T>(row), norm,
                          *at.site.saved.norm_rstd.f32(row), u, d_norm, du + (t0 + t) * s.dim, n, s.dim, grads[t]);
      }
      if (plain(s)) continue;
      site_maps_backward(s, at.site.w, projection ? at.site.saved.logits.f32(first + t0) : nullptr, tokens, grads,
                         {d_logits, partial.base.f32(index), partial.scale.f32(index)}, mm);
      if (projection)
        scale_rows(s, projected(), first + t0, tokens, d_logits, dq.row_block(t0, tokens),
                   correction + t0 * kMaxStreams);
    }
    streams<T>().add_arranged(d_norm, partial.norm.f32(index), s.dim);
  }

  // What the state's gradient owes to the projection (returned, [count, n*D]), and the weights' gradient.
  template <class T>
  const T* through_projection(int64_t first, int64_t count, int64_t index, bool assign, CMat dq,
                              WorkerScratch& scratch) const {
    const int64_t wide = s.streams * s.dim, rows = per_stream() ? count * s.streams : count,
                  width = count * wide / rows, out = dq.size() / rows;
    T* proj = scratch.take<T>(count * wide);
    const CMat d_rows = dq.reshaped(rows, out);
    projection->back(d_rows, Mat(proj, at.x.dtype, rows, width));
    gemm_weight_grad_serial(d_rows, at.x.row_block(first, count).reshaped(rows, width),
                            Mat(partial.fn.f32(index), f32_t, out, width), assign ? Store::assign : Store::accumulate);
    return proj;
  }

  template <class T>
  void block(int64_t first, int64_t count, int64_t index, bool assign) const {
    WorkerScratch scratch;
    const int n = static_cast<int>(s.streams);
    const int64_t wide = s.streams * s.dim;
    const float one = 1.f;
    T* du = scratch.take<T>(count * s.dim);
    float* correction = scratch.take<float>(count * kMaxStreams);
    const Mat dq(projection ? scratch.take<T>(count * s.coefficients()) : nullptr, at.x.dtype, count, s.coefficients());
    std::vector<SiteMaps> maps_at(static_cast<size_t>((count + kTokens - 1) / kTokens));
    coefficients<T>(first, count, index, du, dq, correction, maps_at);
    const T* proj = projection ? through_projection<T>(first, count, index, assign, dq, scratch) : nullptr;
    SiteMaps mb;
    for (int64_t t = 0; t < count; ++t) {
      const int64_t row = first + t;
      for (const CMat& m : {at.x, d.dx_next, at.y, d.d_in}) bring_nearer(m, row + kTokenBlock);
      if (before && !plain(s) && t % kTokens == 0)
        maps(before->site, row, static_cast<int>(std::min<int64_t>(kTokens, count - t)), kPostMap, mb);
      const SiteMaps& mm = maps_at[static_cast<size_t>(t / kTokens)];
      const float* post = !before ? nullptr : plain(s) ? &one : mb.post[t % kTokens];
      streams<T>().state_gradient(at.x.row<T>(row), d.dx_next.row<T>(row), du + t * s.dim,
                                  plain(s) ? &one : mm.res[t % kTokens], plain(s) ? &one : mm.pre[t % kTokens],
                                  proj ? proj + t * wide : nullptr, correction + t * kMaxStreams, d.dx.row<T>(row),
                                  post, before ? before->dy.row<T>(row) : nullptr, n, s.dim);
    }
  }
};

// hc: from the gradient of the folded weights fn * norm to those of both.
void unfold(const SiteWeights& w, CMat d_folded, SiteWeights& d) {
  for (int64_t r = 0; r < d_folded.rows; ++r) {
    for (int64_t c = 0; c < d_folded.cols; ++c) {
      d.fn.f32(r)[c] += d_folded.f32(r)[c] * w.hc_norm.f32()[c];
      d.hc_norm.f32()[c] += d_folded.f32(r)[c] * w.fn.f32(r)[c];
    }
  }
}

void check_retreat(const ResidualSpec& s, const SiteTensors& at, const SiteCotangents& d) {
  const int64_t T = at.x.rows, wide = s.streams * s.dim;
  check_shape(at.x, T, wide);
  check_shape(d.dx_next, T, wide);
  check_shape(d.dx, T, wide);
  check_shape(at.y, T, s.dim);
  check_shape(d.d_in, T, s.dim);
  BK_CHECK(at.x.contiguous());
  for (DType t : {d.dx.dtype, at.y.dtype, d.d_in.dtype, d.dx_next.dtype}) BK_CHECK(t == at.x.dtype);
}

}  // namespace

void site_retreat(const Exec& exec, const ResidualSpec& s, const SiteTensors& at, const SiteCotangents& d,
                  SiteWeights& d_at, const std::optional<SiteWriteGradient>& before, Arena& scratch) {
  const int64_t T = at.x.rows, tasks = (T + task_tokens(T) - 1) / task_tokens(T);
  check_retreat(s, at, d);
  Exec::Span span(exec, Work::residual);
  Arena::Scope scope(scratch);
  const SiteWeights& w = at.site.w;
  std::optional<Projection> p;
  if (projects(s)) p.emplace(exec, projected_weights(exec, s, w, scratch), at.x.dtype, true, scratch);
  const Partials partial(scratch, s, tasks, projects(s) ? w.fn.size() : 0);
  const Retreat r{s, at, d, before, p ? &*p : nullptr, partial};
  exec.parallel_for(tasks, [&](int64_t i) { at.x.dtype == f32_t ? r.task<float>(i) : r.task<bf16>(i); });
  add_parts(exec, partial.norm, d_at.norm);
  if (plain(s)) return;
  add_parts(exec, partial.base, d_at.base);
  add_parts(exec, partial.scale, d_at.scale);
  if (!projects(s)) return;
  if (s.kind != ResidualKind::hc) {
    add_parts(exec, partial.fn, d_at.fn);
    return;
  }
  Mat d_folded = scratch.mat(f32_t, w.fn.rows, w.fn.cols);
  zero(exec, d_folded);
  add_parts(exec, partial.fn, d_folded);
  if (!exec.dry()) unfold(w, d_folded, d_at);
}

namespace {

// Backward of the collapse of the streams and of the write of the last site.
struct CloseBackward {
  const ResidualSpec& s;
  const HeadTensors& head;
  const HeadCotangents& d;
  const SiteWriteGradient& last;
  const Projection* projection;
  const Partials& partial;

  template <class T>
  void task(int64_t index) const {
    const int64_t tokens = task_tokens(head.x.rows), end = std::min(head.x.rows, (index + 1) * tokens);
    partial.clear(index);
    for (int64_t first = index * tokens; first < end; first += kTokenBlock)
      block<T>(first, std::min(kTokenBlock, end - first), index, first == index * tokens);
  }

  // Weights of the collapse, and through their dependence on the state: what it adds to the state's gradient (returned,
  // [count, n*D]).
  template <class T>
  const T* collapse(int64_t first, int64_t count, int64_t index, bool assign, float* weights, float* correction,
                    WorkerScratch& scratch) const {
    const int64_t n = s.streams, wide = n * s.dim;
    const Mat dq(scratch.take<T>(count * n), head.x.dtype, count, n);
    float d_weights[kTokens * kMaxStreams], d_logits[kTokens * kMaxStreams];
    for (int64_t t0 = 0; t0 < count; t0 += kTokens) {
      const int tokens = static_cast<int>(std::min<int64_t>(kTokens, count - t0));
      const float* logits = head.saved.logits.f32(first + t0);
      head_weights(s, head.w, logits, tokens, weights + t0 * n);
      for (int t = 0; t < tokens; ++t)
        streams<T>().sum_dots(head.x.row<T>(first + t0 + t), d.dh.row<T>(first + t0 + t), d_weights + t * n,
                              static_cast<int>(n), s.dim);
      head_weights_backward(s, head.w, logits, tokens, d_weights, d_logits, partial.base.f32(index),
                            partial.scale.f32(index));
      scale_rows(s, {head.saved.logits, head.saved.rstd, 1, wide}, first + t0, tokens, d_logits,
                 dq.row_block(t0, tokens), correction + t0 * kMaxStreams);
    }
    T* proj = scratch.take<T>(count * wide);
    projection->back(dq, Mat(proj, head.x.dtype, count, wide));
    gemm_weight_grad_serial(dq, head.x.row_block(first, count), Mat(partial.fn.f32(index), f32_t, n, wide),
                            assign ? Store::assign : Store::accumulate);
    return proj;
  }

  template <class T>
  void block(int64_t first, int64_t count, int64_t index, bool assign) const {
    WorkerScratch scratch;
    const int64_t n = s.streams, wide = n * s.dim;
    float *weights = scratch.take<float>(count * n), *correction = scratch.take<float>(count * kMaxStreams);
    std::fill_n(weights, count * n, 1.f);
    const T* proj = projection ? collapse<T>(first, count, index, assign, weights, correction, scratch) : nullptr;
    float after[kMaxStreams * kMaxStreams] = {};  // how a gradient that is there already takes part
    for (int64_t j = 0; d.accumulate && j < n; ++j) after[j * n + j] = 1;
    SiteMaps maps;
    for (int64_t t = 0; t < count; ++t) {
      const int64_t row = first + t;
      if (t % kTokens == 0)
        site_maps(s, last.site.w, projects(s) ? last.site.saved.logits.f32(row) : nullptr,
                  static_cast<int>(std::min<int64_t>(kTokens, count - t)), kPostMap, maps);
      // dx_i = w_i dh + projection terms: the state's gradient with no state after it, or as if one were after it
      // unmixed.
      streams<T>().state_gradient(head.x.row<T>(row), d.accumulate ? d.dx.row<T>(row) : head.x.row<T>(row),
                                  d.dh.row<T>(row), after, weights + t * n, proj ? proj + t * wide : nullptr,
                                  correction + t * kMaxStreams, d.dx.row<T>(row), maps.post[t % kTokens],
                                  last.dy.row<T>(row), static_cast<int>(n), s.dim);
    }
  }
};

}  // namespace

void site_close_backward(const Exec& exec, const ResidualSpec& s, const HeadTensors& head, const HeadCotangents& d,
                         HeadWeights& d_head, const SiteWriteGradient& last, Arena& scratch) {
  const int64_t T = head.x.rows, tasks = (T + task_tokens(T) - 1) / task_tokens(T);
  check_shape(d.dh, T, s.dim);
  check_shape(d.dx, T, s.streams * s.dim);
  check_shape(last.dy, T, s.dim);
  if (plain(s)) {
    d.accumulate ? add(exec, d.dh, d.dx) : copy(exec, d.dh, d.dx);
    copy(exec, d.dx, last.dy);
    return;
  }
  Exec::Span span(exec, Work::residual);
  Arena::Scope scope(scratch);
  const HeadWeights& w = head.w;
  const bool learned = !w.fn.empty();
  std::optional<Projection> p;
  if (learned) p.emplace(exec, w.fn, head.x.dtype, true, scratch);
  const Partials partial(scratch, s, tasks, learned ? w.fn.size() : 0);
  const CloseBackward r{s, head, d, last, p ? &*p : nullptr, partial};
  exec.parallel_for(tasks, [&](int64_t i) { head.x.dtype == f32_t ? r.task<float>(i) : r.task<bf16>(i); });
  if (!learned) return;
  add_parts(exec, partial.base, d_head.base);
  add_parts(exec, partial.scale, d_head.scale);
  add_parts(exec, partial.fn, d_head.fn);
}

}  // namespace birkhoff::ops
