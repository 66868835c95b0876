// Compressed key-value entries of DeepSeek-V4 (models.md G.4): every `ratio` tokens of a document become one entry, a
// softmax-weighted sum of their key rows taken separately in every channel.
//   without overlap (HCA)  entry = sum over the window's rows j of softmax_j(z_j + ape_j) k_j
//   with overlap (CSA)     rows have two halves of channels: the previous window takes part through the first half,
//                          the own window through the second, under one softmax; the first window of a document has
//                          no previous one
#pragma once
#include <cstdint>
#include <span>

#include "core/arena.h"
#include "core/exec.h"
#include "core/view.h"

namespace birkhoff::ops {

struct CompressorShape {
  int64_t dim = 0;    // of an entry
  int64_t ratio = 0;  // tokens of a window
  bool overlap = false;
  int64_t row_cols() const { return overlap ? 2 * dim : dim; }
  // Rows a continued sequence of `tokens` keeps: those of the unfinished window and, with overlap, the whole window
  // before it.
  int64_t pending_rows(int64_t tokens) const { return tokens % ratio + (overlap && tokens >= ratio ? ratio : 0); }
  int64_t most_pending_rows() const { return ratio - 1 + (overlap ? ratio : 0); }
  // The most entries that T tokens after `cached` ones can complete.
  int64_t most_windows(int64_t cached, int64_t tokens) const { return (cached % ratio + tokens) / ratio; }
};

// A complete window: rows first_row .. first_row + ratio - 1 are its tokens. With overlap and has_previous the ratio
// rows before them are the window before.
struct CompressorWindow {
  int32_t first_row = 0;
  int32_t has_previous = 0;
};

// The windows of a call and which entries its T tokens see: a token sees the entry whose window it completes, and those
// before it in its document. Tails shorter than ratio make no entry.
struct CompressorPlan {
  std::span<CompressorWindow> windows;  // in row order
  std::span<int32_t> position;          // of the first token of every window in its document
  std::span<int32_t> first, end;        // [T] visible entries [first[t], end[t])
  // Room for T tokens after `cached` ones. Its windows are the most there can be, which is what a dry run counts with.
  static CompressorPlan take(Arena& arena, const CompressorShape& s, int64_t cached, int64_t tokens);
};
// T rows that consist of documents, each compressed on its own: first_key [T] is the first row of every token's
// document.
void plan_documents(const CompressorShape& s, std::span<const int32_t> first_key, CompressorPlan& plan);
// T tokens that continue a sequence of `cached`: rows are the pending ones, then theirs; entries count from the
// sequence's first.
void plan_continuation(const CompressorShape& s, int64_t cached, CompressorPlan& plan);

// kz [R, 2 row_cols] fp32: key rows k, then gates z. ape [ratio, row_cols] fp32. entries [windows, dim] fp32 assigned.
void compress_forward(const Exec& exec, const CompressorShape& s, std::span<const CompressorWindow> windows, CMat kz,
                      CMat ape, Mat entries);
// d_kz [R, 2 row_cols] fp32 assigned (rows that belong to no entry: zero); d_ape += . A row belongs to at most one
// window, and to the one before of at most one.
void compress_backward(const Exec& exec, const CompressorShape& s, std::span<const CompressorWindow> windows, CMat kz,
                       CMat ape, CMat d_entries, Mat d_kz, Mat d_ape);

}  // namespace birkhoff::ops
