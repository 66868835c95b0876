// The compressor of DeepSeek-V4's attention and of its indexer (models.md G.4): pooled windows, RMSNorm, RoPE on the
// last channels at the window's first token.
#pragma once
#include <string>

#include "layers/linear.h"
#include "layers/parameter.h"
#include "layers/pass.h"
#include "ops/attention/compressor.h"

namespace birkhoff::layers {

struct Compressor {
  struct Spec {
    int64_t dim = 0;  // of the tokens
    ops::CompressorShape shape;
    int64_t rope = 0;
    float eps = 1e-6f;
  };
  struct Weights {
    Linear kv_gate;     // [2 row_cols, dim]: wkv above wgate
    Mat position_bias;  // ape [ratio, row_cols]
    Mat norm;           // [1, entry dim]
    Weights() = default;
    explicit Weights(const Spec& s);
    template <class W, class F>
    static void visit(W& w, const std::string& p, F&& f) {
      f(p, w.kv_gate);
      f(p + "position_bias", w.position_bias, Role::position_bias);
      f(p + "kv_norm.weight", w.norm, Role::norm);
    }
  };
  // Of a continued text: the rows of tokens that will take part in an entry yet to come.
  struct Cache {
    Mat pending;  // [most_pending_rows, 2 row_cols] fp32
    static Cache take(Arena& arena, const Spec& s);
  };
  struct Saved {
    Mat kz;      // [T, 2 row_cols] fp32: keys and gates; of a continued text behind those of its pending tokens
    Mat pooled;  // [windows, entry dim] before the norm
    Mat rstd;    // [windows, 1]
  };
  // The tokens x [T, dim], and the windows that end among them.
  struct Input {
    const ops::CompressorPlan& plan;
    CMat x;
  };
  static Mat reserve_rows(Arena& arena, const Spec& s, int64_t tokens);  // kz
  // Of T tokens that follow `past` others of their text, whose pending rows stand before them.
  static Saved reserve(Arena& arena, const Spec& s, DType dtype, int64_t tokens, int64_t past);
  // x [T, dim] -> kz [T, 2 row_cols], which stay fp32: a softmax over them decides what an entry holds.
  static void project(const Pass& p, const Weights& w, CMat x, Mat kz);
  // A text goes on: rows [T, 2 row_cols] behind its pending ones -> kz; the cache then holds T tokens more.
  static void continue_rows(const Pass& p, const Spec& s, CMat rows, int64_t past, const Cache& cache, Mat kz);
  // saved.kz -> entries [plan.windows, entry dim], assigned.
  static void compress(const Pass& p, const Spec& s, const Weights& w, const ops::CompressorPlan& plan, Saved& saved,
                       Mat entries);
  // Of whole texts. d_entries is overwritten; dx [T, dim] assigned, or left out when empty (a detached input).
  static void backward(const Pass& p, const Spec& s, const Weights& w, Input in, const Saved& saved, Mat d_entries,
                       Mat dx, Weights& grad);
};

}  // namespace birkhoff::layers
