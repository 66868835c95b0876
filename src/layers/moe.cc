#include "layers/moe.h"

#include "ops/experts/dispatch.h"
#include "ops/rows/elementwise.h"
#include "ops/rows/embedding.h"
#include "ops/rows/swiglu.h"

namespace birkhoff::layers {
namespace {

// One product of all experts, in expert order.
std::vector<const Linear*> of_experts(const std::vector<DenseFfn::Weights>& experts, Linear DenseFfn::Weights::*which) {
  std::vector<const Linear*> v;
  for (const auto& e : experts) v.push_back(&(e.*which));
  return v;
}
std::vector<Linear*> of_experts(std::vector<DenseFfn::Weights>& experts, Linear DenseFfn::Weights::*which) {
  std::vector<Linear*> v;
  for (auto& e : experts) v.push_back(&(e.*which));
  return v;
}
constexpr auto kGateUp = &DenseFfn::Weights::gate_up;
constexpr auto kDown = &DenseFfn::Weights::down;

// Experts one behind the other, with all that some of them read.
struct ExpertRun {
  size_t first = 0, count = 0;
  std::vector<ByteRange> memory, passing;
};

// The chosen experts, cut where their weights are more than should be asked for at a time.
std::vector<ExpertRun> chosen_runs(const std::vector<DenseFfn::Weights>& experts, const ops::Routing& r,
                                   int64_t run_bytes) {
  std::vector<ExpertRun> runs;
  int64_t bytes = run_bytes;
  for (size_t e = 0; e < experts.size(); ++e) {
    if (r.offsets[e] == r.offsets[e + 1]) continue;
    if (bytes >= run_bytes) {
      runs.push_back({e, 0, {}, {}});
      bytes = 0;
    }
    ExpertRun& run = runs.back();
    run.count = e + 1 - run.first;
    const size_t before = run.memory.size();
    for (const Linear* l : {&experts[e].gate_up, &experts[e].down}) {
      add_memory(*l, false, run.memory);
      if (l->passing) add_memory(*l, false, run.passing);
    }
    for (size_t i = before; i < run.memory.size(); ++i) bytes += static_cast<int64_t>(run.memory[i].size());
  }
  return runs;
}

// What the experts of a forward read and write, row by row of the dispatched matrix.
struct ExpertRows {
  CMat in, weight;
  Mat gu, h, out;
  ExpertRows block(int64_t first, int64_t count) const {
    return {in.row_block(first, count), weight.row_block(first, count), gu.row_block(first, count),
            h.row_block(first, count), out.row_block(first, count)};
  }
};
using Linears = std::span<const Linear* const>;

void run_experts(const Exec& exec, float limit, Linears gate_up, Linears down, std::span<const int32_t> offsets,
                 const ExpertRows& rows) {
  grouped_linear_forward(exec, gate_up, rows.in, offsets, rows.gu);
  ops::swiglu_forward(exec, rows.gu, rows.weight, rows.h, limit);
  grouped_linear_forward(exec, down, rows.h, offsets, rows.out);
}

// The same, each run while the weights of the next are read from the disk. Bits are the same: rows are on their own.
void run_streamed_experts(const Exec& exec, float limit, const std::vector<ExpertRun>& runs, Linears gate_up,
                          Linears down, std::span<const int32_t> offsets, const ExpertRows& rows) {
  for (size_t i = 0; i < runs.size(); ++i) {
    if (i + 1 < runs.size()) ops::will_need(exec, runs[i + 1].memory);
    const size_t first = runs[i].first, count = runs[i].count;
    const int32_t begin = offsets[first], end = offsets[first + count];
    std::vector<int32_t> own(offsets.begin() + static_cast<ptrdiff_t>(first),
                             offsets.begin() + static_cast<ptrdiff_t>(first + count + 1));
    for (int32_t& offset : own) offset -= begin;
    run_experts(exec, limit, gate_up.subspan(first, count), down.subspan(first, count), own,
                rows.block(begin, end - begin));
    ops::give_back(exec, runs[i].passing);
  }
}

}  // namespace

Moe::Weights::Weights(const Spec& s) : router({{"gate", s.rule.experts, Role::router}}, s.dim, /*fp32=*/true) {
  if (s.rule.bias) bias = Mat(nullptr, DType::f32, 1, s.rule.experts);
  if (s.hash_vocab) table = Mat(nullptr, DType::f32, s.hash_vocab, s.rule.active);
  experts.assign(static_cast<size_t>(s.rule.experts), DenseFfn::Weights(s.expert()));
  if (s.shared_inter) shared = DenseFfn::Weights(s.shared());
}

void Moe::reserve_routing(Arena& arena, const Spec& s, int64_t tokens, Saved& saved) {
  saved.routing = ops::Routing::take(arena, tokens, s.rule.experts, s.rule.active);
  saved.logits = arena.mat(f32_t, tokens, s.rule.experts);
}

void Moe::reserve_activations(Arena& arena, const Spec& s, DType dtype, int64_t tokens, Saved& saved) {
  const int64_t rows = tokens * s.rule.active;
  saved.rows = arena.mat(dtype, rows, s.dim);
  saved.gu = arena.mat(dtype, rows, 2 * s.inter);
  saved.row_weight = arena.mat(f32_t, rows, 1);
  if (s.shared_inter) saved.shared = DenseFfn::reserve(arena, s.shared(), dtype, tokens);
}

void Moe::route(const Pass& p, const Spec& s, const Weights& w, CMat x, Saved& saved) {
  linear_forward(p.exec, w.router, x, saved.logits);
  if (!s.hash_vocab) {
    ops::route_forward(p.exec, s.rule, saved.logits, w.bias, saved.routing);
    return;
  }
  ops::embedding_forward(p.exec, w.table, p.ctx.token_id, saved.routing.weights);
  ops::route_given(p.exec, s.rule, saved.logits, saved.routing.weights, saved.routing);
}

void Moe::forward(const Pass& p, const Spec& s, const Weights& w, CMat x, Saved& saved, Mat y) {
  Arena::Scope scope(p.scratch);
  const auto& r = saved.routing;
  std::vector<ExpertRun> runs;
  const bool streamed = p.stream_bytes > 0 && !p.exec.dry();
  if (streamed) {
    runs = chosen_runs(w.experts, r, p.stream_bytes);
    if (!runs.empty()) ops::will_need(p.exec, runs[0].memory);
  }
  if (s.shared_inter) DenseFfn::forward(p, s.shared(), w.shared, x, saved.shared, y);
  ops::dispatch_forward(p.exec, r, x, saved.rows);
  ops::slots_to_rows(p.exec, r, r.weights, saved.row_weight);
  Mat h = p.scratch.mat(x.dtype, saved.rows.rows, s.inter), out = p.scratch.mat(x.dtype, saved.rows.rows, s.dim);
  const auto gate_up = of_experts(w.experts, kGateUp), down = of_experts(w.experts, kDown);
  const ExpertRows rows{saved.rows, saved.row_weight, saved.gu, h, out};
  if (streamed)
    run_streamed_experts(p.exec, s.limit, runs, gate_up, down, r.offsets, rows);
  else
    run_experts(p.exec, s.limit, gate_up, down, r.offsets, rows);
  ops::combine_forward(p.exec, r, out, y, /*accumulate=*/s.shared_inter != 0);
}

void Moe::backward(const Pass& p, const Spec& s, const Weights& w, CMat x, const Saved& saved, Cotangents d, Weights& g,
                   ops::BalanceLoss& balance) {
  Arena::Scope scope(p.scratch);
  const auto& r = saved.routing;
  const int64_t rows = saved.rows.rows;
  const DType dt = x.dtype;

  Mat d_row_weight = p.scratch.mat(f32_t, rows, 1), d_in_rows = p.scratch.mat(dt, rows, s.dim);
  {
    Arena::Scope inner(p.scratch);
    Mat dgu = p.scratch.mat(dt, rows, 2 * s.inter);
    {
      Arena::Scope down(p.scratch);
      Mat d_out = p.scratch.mat(dt, rows, s.dim), h = p.scratch.mat(dt, rows, s.inter),
          dh = p.scratch.mat(dt, rows, s.inter);
      ops::combine_backward(p.exec, r, d.dy, d_out);
      ops::swiglu_forward(p.exec, saved.gu, saved.row_weight, h, s.limit);
      grouped_linear_backward(p.exec, of_experts(w.experts, kDown), h, d_out, r.offsets, dh,
                              of_experts(g.experts, kDown), p.scratch);
      ops::swiglu_backward(p.exec, saved.gu, saved.row_weight, dh, dgu, d_row_weight, s.limit);
    }
    grouped_linear_backward(p.exec, of_experts(w.experts, kGateUp), saved.rows, dgu, r.offsets, d_in_rows,
                            of_experts(g.experts, kGateUp), p.scratch);
  }
  if (s.shared_inter) DenseFfn::backward(p, s.shared(), w.shared, x, saved.shared, d, g.shared);
  ops::dispatch_backward(p.exec, r, d_in_rows, d.dx, /*accumulate=*/s.shared_inter != 0);

  Mat d_weights = p.scratch.mat(f32_t, x.rows, s.rule.active), d_logits = p.scratch.mat(f32_t, x.rows, s.rule.experts);
  ops::rows_to_slots(p.exec, r, d_row_weight, d_weights);
  ops::route_backward(p.exec, s.rule, saved.logits, r, d_weights, d_logits);
  if (s.balance.any())
    ops::balance_losses(p.exec, s.rule, s.balance, {saved.logits, r, p.ctx.sequence_start}, balance, d_logits,
                        p.scratch);
  Mat dx_router = p.scratch.mat(dt, x.rows, s.dim);
  linear_backward(p.exec, w.router, x, d_logits, dx_router, g.router, p.scratch);
  ops::add(p.exec, dx_router, d.dx);
}

}  // namespace birkhoff::layers
