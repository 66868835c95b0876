// Backward of the residual path (mhc.md 8.2), a block of tokens at a time.
#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "kernels/streams.h"
#include "ops/elementwise.h"
#include "ops/projection.h"
#include "ops/residual.h"
#include "ops/residual_coefficients.h"

namespace birkhoff::ops {
namespace {

using kernels::kMaxStreams;
using kernels::StreamGradients;

constexpr int64_t kBlock = 64;  // tokens of a task; also of the partial sums that are combined in order

template <class T>
const kernels::StreamKernels<T>& streams() {
  if constexpr (std::is_same_v<T, float>)
    return kernels::stream_kernels().f32;
  else
    return kernels::stream_kernels().b16;
}

bool plain(const ResidualSpec& s) { return s.kind == ResidualKind::plain; }
bool projects(const ResidualSpec& s) { return s.kind == ResidualKind::mhc || (s.kind == ResidualKind::hc && s.dynamic); }

// Sums over the tokens of one block: pre-norm weight, static parts, scales.
struct Partials {
  Mat norm, base, scale;  // one row a block
  Partials(Arena& a, const ResidualSpec& s, int64_t blocks)
      : norm(a.mat(f32_t, blocks, s.dim)), base(a.mat(f32_t, blocks, std::max<int64_t>(1, s.coefficients()))), scale(a.mat(f32_t, blocks, 4)) {}
};

void clear_row(Mat m, int64_t row) { std::fill_n(m.f32(row), m.cols, 0.f); }

void add_rows(const Exec& exec, CMat partial, Mat total) {
  for (int64_t r = 0; r < partial.rows; ++r) add(exec, partial.row_block(r, 1).col_block(0, total.cols), total);
}

struct Retreat {
  const Exec& exec;
  const ResidualSpec& s;
  const SiteWeights& at;
  const SiteSaved& saved;
  const SiteWeights* before;
  const SiteSaved* before_saved;
  const Projection* projection;
  Mat dq;  // [T, n(n+2)]: rstd * d_logits, what d_fn is made of

  // Maps of 16 tokens from `first`.
  void maps(const SiteWeights& w, const SiteSaved& sv, int64_t first, int count, Wanted wanted, SiteMaps& m) const {
    site_maps(s, w, projects(s) ? sv.logits.f32(first) : nullptr, count, wanted, m);
  }

  template <class T>
  void block(CMat x, CMat y, CMat d_in, CMat g, Mat dx, Mat d_y_before, int64_t first, int64_t count, Partials& partial, int64_t index) const {
    WorkerScratch scratch;
    const int n = static_cast<int>(s.streams);
    const int64_t wide = s.streams * s.dim;
    float* du = scratch.take<float>(count * s.dim);
    float* correction = scratch.take<float>(count * kMaxStreams);
    float* proj = projection ? scratch.take<float>(count * wide) : nullptr;
    std::vector<SiteMaps> maps_at(static_cast<size_t>((count + kTokens - 1) / kTokens));
    clear_row(partial.norm, index);
    clear_row(partial.base, index);
    clear_row(partial.scale, index);
    for (int64_t t0 = 0; t0 < count; t0 += kTokens) {
      const int tokens = static_cast<int>(std::min<int64_t>(kTokens, count - t0));
      SiteMaps& mm = maps_at[static_cast<size_t>(t0 / kTokens)];
      if (!plain(s)) maps(at, saved, first + t0, tokens, kReadMaps, mm);
      StreamGradients grads[kTokens];
      for (int t = 0; t < tokens; ++t) {
        const int64_t row = first + t0 + t;
        const float one = 1.f;
        float* u = du + (t0 + t) * s.dim;
        streams<T>().read_norm(x.row<T>(row), plain(s) ? &one : mm.pre[t], nullptr, 0, u, nullptr, n, s.dim);
        streams<T>().dots(x.row<T>(row), y.row<T>(row), g.row<T>(row), d_in.row<T>(row), at.norm.f32(), *saved.norm_rstd.f32(row), u, partial.norm.f32(index), n, s.dim, grads[t]);
      }
      if (plain(s)) continue;
      float* d_logits = projection ? dq.f32(first + t0) : nullptr;
      site_maps_backward(s, at, projection ? saved.logits.f32(first + t0) : nullptr, tokens, grads, d_logits, partial.base.f32(index), partial.scale.f32(index), mm);
      if (projection) scale_rows(first + t0, tokens, correction + t0 * kMaxStreams);
    }
    if (projection) {
      const bool per_stream = s.kind == ResidualKind::hc;
      projection->back(dq.f32(first), per_stream ? count * s.streams : count, proj);
    }
    SiteMaps mb;
    for (int64_t t = 0; t < count; ++t) {
      const int64_t row = first + t;
      if (before && !plain(s) && t % kTokens == 0) maps(*before, *before_saved, row, static_cast<int>(std::min<int64_t>(kTokens, count - t)), kPostMap, mb);
      const SiteMaps& mm = maps_at[static_cast<size_t>(t / kTokens)];
      const float one = 1.f;
      const float* post = !before ? nullptr : plain(s) ? &one : mb.post[t % kTokens];
      streams<T>().state_gradient(x.row<T>(row), g.row<T>(row), du + t * s.dim, plain(s) ? &one : mm.res[t % kTokens], plain(s) ? &one : mm.pre[t % kTokens],
                                  proj ? proj + t * wide : nullptr, correction + t * kMaxStreams, dx.row<T>(row), post, before ? d_y_before.row<T>(row) : nullptr, n, s.dim);
    }
  }

  // dq *= rstd, and per stream the factor of x from the root mean square: rstd^2 (dq . q) / width.
  void scale_rows(int64_t first, int tokens, float* correction) const {
    const int64_t n = s.streams, m = s.coefficients();
    const bool per_stream = s.kind == ResidualKind::hc;
    const int64_t groups = per_stream ? n : 1, each = m / groups;
    for (int t = 0; t < tokens; ++t) {
      for (int64_t k = 0; k < groups; ++k) {
        float* d = dq.f32(first + t) + k * each;
        const float* q = saved.logits.f32(first + t) + k * each;
        const float rstd = saved.rstd.f32(first + t)[k];
        float dot = 0;
        for (int64_t i = 0; i < each; ++i) {
          dot += d[i] * q[i];
          d[i] *= rstd;
        }
        const float c = rstd * rstd * dot / static_cast<float>(per_stream ? s.dim : n * s.dim);
        if (per_stream)
          correction[t * kMaxStreams + k] = c;
        else
          std::fill_n(correction + t * kMaxStreams, n, c);
      }
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

}  // namespace

void site_retreat(const Exec& exec, const ResidualSpec& s, const SiteWeights& at, const SiteSaved& at_saved, CMat x, CMat y, CMat d_in, CMat dx_next, Mat dx, SiteWeights& d_at,
                  const SiteWeights* before, const SiteSaved* before_saved, Mat d_y_before, Arena& scratch) {
  const int64_t T = x.rows, blocks = (T + kBlock - 1) / kBlock;
  check_shape(x, T, s.streams * s.dim);
  check_shape(dx_next, T, x.cols);
  check_shape(dx, T, x.cols);
  check_shape(y, T, s.dim);
  check_shape(d_in, T, s.dim);
  BK_CHECK(x.contiguous() && x.dtype == dx.dtype && x.dtype == y.dtype && x.dtype == d_in.dtype && x.dtype == dx_next.dtype);
  Exec::Span span(exec, Work::residual);
  Arena::Scope scope(scratch);
  const bool hc = s.kind == ResidualKind::hc;
  Mat folded;
  std::optional<Projection> p;
  Mat dq;
  if (projects(s)) {
    CMat fn = at.fn;
    if (hc) {
      folded = scratch.mat(f32_t, at.fn.rows, at.fn.cols);
      if (!exec.dry())
        for (int64_t r = 0; r < folded.rows; ++r)
          for (int64_t c = 0; c < folded.cols; ++c) folded.f32(r)[c] = at.fn.f32(r)[c] * at.hc_norm.f32()[c];
      fn = folded;
    }
    p.emplace(exec, fn, x.dtype, true, scratch);
    dq = scratch.mat(f32_t, T, s.coefficients());
  }
  Partials partial(scratch, s, blocks);
  const Retreat r{exec, s, at, at_saved, before, before_saved, p ? &*p : nullptr, dq};
  exec.parallel_for(blocks, [&](int64_t b) {
    const int64_t first = b * kBlock, count = std::min(kBlock, T - first);
    if (x.dtype == f32_t)
      r.block<float>(x, y, d_in, dx_next, dx, d_y_before, first, count, partial, b);
    else
      r.block<bf16>(x, y, d_in, dx_next, dx, d_y_before, first, count, partial, b);
  });
  add_rows(exec, partial.norm, d_at.norm);
  if (plain(s)) return;
  add_rows(exec, partial.base, d_at.base);
  add_rows(exec, partial.scale, d_at.scale);
  if (!projects(s)) return;
  if (!hc) {
    projection_weight_grad(exec, dq, x, d_at.fn, scratch);
    return;
  }
  Mat d_folded = scratch.mat(f32_t, at.fn.rows, at.fn.cols);
  zero(exec, d_folded);
  projection_weight_grad(exec, dq.reshaped(T * s.streams, s.streams + 2), x.reshaped(T * s.streams, s.dim), d_folded, scratch);
  if (!exec.dry()) unfold(at, d_folded, d_at);
}

void site_close_backward(const Exec& exec, const ResidualSpec& s, const HeadWeights& head, const HeadSaved& head_saved, CMat x_end, CMat dh, HeadWeights& d_head,
                         const SiteWeights& last, const SiteSaved& last_saved, Mat dx_end, Mat dy, Arena& scratch) {
  const int64_t T = x_end.rows, n = s.streams, blocks = (T + kBlock - 1) / kBlock;
  check_shape(dh, T, s.dim);
  check_shape(dx_end, T, n * s.dim);
  check_shape(dy, T, s.dim);
  if (plain(s)) {
    copy(exec, dh, dx_end);
    copy(exec, dh, dy);
    return;
  }
  Exec::Span span(exec, Work::residual);
  Arena::Scope scope(scratch);
  const bool learned = !head.fn.empty();
  std::optional<Projection> p;
  Mat dq;
  if (learned) {
    p.emplace(exec, head.fn, x_end.dtype, true, scratch);
    dq = scratch.mat(f32_t, T, n);
  }
  Mat base = scratch.mat(f32_t, blocks, n), scale = scratch.mat(f32_t, blocks, 1);
  const auto run = [&]<class T_>(T_, int64_t first, int64_t count, int64_t index) {
    WorkerScratch mine;
    const int64_t wide = n * s.dim;
    float* proj = mine.take<float>(count * wide);
    float* dh32 = mine.take<float>(s.dim);
    const std::vector<float> zeros(kMaxStreams * kMaxStreams, 0.f), ones(kMaxStreams, 1.f);
    std::vector<float> weights(static_cast<size_t>(count * n), 1.f), d_weights(static_cast<size_t>(count * n)), correction(static_cast<size_t>(count * kMaxStreams));
    clear_row(base, index);
    clear_row(scale, index);
    if (learned) {
      for (int64_t t0 = 0; t0 < count; t0 += kTokens) {
        const int tokens = static_cast<int>(std::min<int64_t>(kTokens, count - t0));
        const int64_t row = first + t0;
        head_weights(s, head, head_saved.logits.f32(row), tokens, weights.data() + t0 * n);
        for (int t = 0; t < tokens; ++t)
          streams<T_>().sum_dots(x_end.row<T_>(row + t), dh.row<T_>(row + t), d_weights.data() + (t0 + t) * n, static_cast<int>(n), s.dim);
        head_weights_backward(s, head, head_saved.logits.f32(row), tokens, d_weights.data() + t0 * n, dq.f32(row), base.f32(index), scale.f32(index));
        for (int t = 0; t < tokens; ++t) {
          const float rstd = *head_saved.rstd.f32(row + t);
          float dot = 0;
          for (int64_t i = 0; i < n; ++i) {
            dot += dq.f32(row + t)[i] * head_saved.logits.f32(row + t)[i];
            dq.f32(row + t)[i] *= rstd;
          }
          std::fill_n(correction.data() + (t0 + t) * kMaxStreams, n, rstd * rstd * dot / static_cast<float>(wide));
        }
      }
      p->back(dq.f32(first), count, proj);
    }
    SiteMaps maps;
    for (int64_t t = 0; t < count; ++t) {
      const int64_t row = first + t;
      if (t % kTokens == 0) site_maps(s, last, projects(s) ? last_saved.logits.f32(row) : nullptr, static_cast<int>(std::min<int64_t>(kTokens, count - t)), kPostMap, maps);
      for (int64_t c = 0; c < s.dim; ++c) dh32[c] = to_float(dh.row<T_>(row)[c]);
      // dx_i = w_i dh + projection terms: the state's gradient with no state after it.
      streams<T_>().state_gradient(x_end.row<T_>(row), x_end.row<T_>(row), dh32, zeros.data(), weights.data() + t * n, learned ? proj + t * wide : nullptr,
                                   correction.data() + t * kMaxStreams, dx_end.row<T_>(row), maps.post[t % kTokens], dy.row<T_>(row), static_cast<int>(n), s.dim);
    }
  };
  exec.parallel_for(blocks, [&](int64_t b) {
    const int64_t first = b * kBlock, count = std::min(kBlock, T - first);
    x_end.dtype == f32_t ? run(float{}, first, count, b) : run(bf16{}, first, count, b);
  });
  if (!learned) return;
  add_rows(exec, base, d_head.base);
  add_rows(exec, scale, d_head.scale);
  projection_weight_grad(exec, dq, x_end, d_head.fn, scratch);
}

}  // namespace birkhoff::ops
