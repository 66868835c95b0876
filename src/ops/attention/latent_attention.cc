#include "ops/attention/latent_attention.h"

#include <algorithm>

#include "kernels/attention/latent_attention.h"
#include "ops/attention/paged_rows.h"

namespace birkhoff::ops {
namespace {

using kernels::AttentionRows;
using kernels::kLatentColumns;
using kernels::kLatentPiece;

int64_t pieces_of(int64_t keys) { return (keys + kLatentPiece - 1) / kLatentPiece; }

// What the pieces of a group of queries found, until it is folded: the only memory that grows with their product. The
// group's size changes no result.
struct LatentPartials {
  static constexpr int64_t kMostBytes = int64_t{16} << 20;
  int64_t width, queries, columns;  // of a row of o; of a group; of its columns, rounded up
  float *top, *total, *o;           // [pieces][columns], o [pieces][columns][width]
  LatentPartials(const AttentionShape& s, int64_t tokens, int64_t positions, Arena& scratch)
      : width((s.v_dim + 15) / 16 * 16),
        queries(std::clamp<int64_t>(kMostBytes / (4 * s.heads * width * pieces_of(positions)), 1, tokens)),
        columns((queries * s.heads + 15) / 16 * 16),
        top(scratch.take<float>(pieces_of(positions) * columns)),
        total(scratch.take<float>(pieces_of(positions) * columns)),
        o(scratch.take<float>(pieces_of(positions) * columns * width)) {}
};

struct LatentCall {
  const AttentionShape& s;
  CMat q;
  const KeyRows& latents;
  Mat o;

  // A piece where it lies, or as numbers.
  AttentionRows rows(int64_t key, int64_t count, WorkerScratch& memory) const {
    if (!latents.encoded) return latents.from(key, 0, s.qk_dim);
    const Mat numbers(memory.take_bytes(static_cast<size_t>(count * s.qk_dim * dtype_bytes(q.dtype))), q.dtype, count,
                      s.qk_dim);
    latents.encoded->read_piece(latents.pages, key, numbers);
    return {numbers.data, numbers.stride};
  }

  // One piece of keys for one block of columns of queries [begin, end), which all see keys from `first` on.
  void piece(const LatentPartials& partials, int64_t begin, int64_t end, int64_t first, int64_t index,
             int64_t block) const {
    const auto& kernel = kernels::latent_attention_kernels();
    const int64_t before = latents.rows - q.rows, key = first + index * kLatentPiece;
    kernels::LatentPiece a{};
    a.col_begin = block * kLatentColumns, a.col_end = std::min((end - begin) * s.heads, a.col_begin + kLatentColumns);
    a.first_visible = before + begin - key;
    if (a.first_visible + (a.col_end - 1) / s.heads < 0) return;  // no query of the block sees the piece
    a.keys = std::min(kLatentPiece, before + end - key);
    WorkerScratch memory;
    a.q = {q.row_block(begin, end - begin).data, q.stride}, a.cache = rows(key, a.keys, memory);
    a.heads = s.heads, a.qk_dim = s.qk_dim, a.v_dim = s.v_dim, a.scale = s.scale;
    const int64_t at = index * partials.columns + a.col_begin;
    a.top = partials.top + at, a.total = partials.total + at, a.o = partials.o + at * partials.width;
    a.scratch =
        memory.take_bytes(static_cast<size_t>(kernel.scratch_bytes(s.qk_dim, s.v_dim, a.col_end - a.col_begin)));
    (q.dtype == f32_t ? kernel.piece_f32 : kernel.piece_bf16)(a);
  }

  void run(const Exec& exec, const LatentPartials& partials, int64_t begin, int64_t end, int64_t first) const {
    const auto& kernel = kernels::latent_attention_kernels();
    const bool f32 = q.dtype == f32_t;
    const int64_t before = latents.rows - q.rows, columns = (end - begin) * s.heads,
                  blocks = (columns + kLatentColumns - 1) / kLatentColumns, pieces = pieces_of(before + end - first);
    exec.parallel_for(pieces * blocks,
                      [&](int64_t task) { piece(partials, begin, end, first, task / blocks, task % blocks); });
    const int64_t step = std::clamp<int64_t>(32768 / (pieces * partials.width), 1, columns);
    exec.parallel_for((columns + step - 1) / step, [&](int64_t task) {
      for (int64_t c = task * step; c < std::min(columns, (task + 1) * step); ++c) {
        const int64_t query = begin + c / s.heads;
        const kernels::LatentFold a{partials.top + c,
                                    partials.total + c,
                                    partials.o + c * partials.width,
                                    pieces_of(before + query + 1 - first),
                                    partials.columns,
                                    partials.columns * partials.width,
                                    s.v_dim,
                                    o.row_block(query, 1).col_block(c % s.heads * s.v_dim, s.v_dim).data};
        (f32 ? kernel.fold_f32 : kernel.fold_bf16)(a);
      }
    });
  }
};

}  // namespace

void latent_attention_forward(const Exec& exec, const AttentionShape& s, CMat q, const KeyRows& latents,
                              std::span<const int32_t> first_key, Mat o, Arena& scratch) {
  const int64_t positions = latents.rows;
  BK_CHECK(s.heads > 0 && s.kv_heads == 1 && s.v_dim > 0 && s.v_dim <= s.qk_dim);
  BK_CHECK(s.scale > 1e-20f && s.scale < 1e6f);  // the sign and size that masked scores are made for
  BK_CHECK_LE(q.rows, positions);
  check_shape(q, q.rows, s.heads * s.qk_dim);
  check_rows(latents, positions, s.qk_dim);
  check_shape(o, q.rows, s.heads * s.v_dim);
  BK_CHECK(latents.dtype == q.dtype && o.dtype == q.dtype);
  if (q.rows == 0) return;
  Arena::Scope scope(scratch);
  const LatentPartials partials(s, q.rows, positions, scratch);
  if (exec.dry()) return;
  Exec::Span span(exec, Work::attention);
  BK_CHECK_EQ(static_cast<int64_t>(first_key.size()), q.rows);
  const auto first = [&](int64_t t) { return first_key[static_cast<size_t>(t)]; };
  for (int64_t t = 0; t < q.rows; ++t) BK_CHECK(first(t) >= 0 && first(t) <= positions - q.rows + t);
  const LatentCall call{s, q, latents, o};
  for (int64_t begin = 0, end = 0; begin < q.rows; begin = end) {
    while (end < q.rows && end - begin < partials.queries && first(end) == first(begin)) ++end;
    call.run(exec, partials, begin, end, first(begin));
  }
}

}  // namespace birkhoff::ops
