#include "layers/dense_ffn.h"

namespace birkhoff::layers {

void DenseFfn::forward(const Exec& exec, const Spec& s, const Weights& w, CMat x, Saved& saved, Mat y, Arena& scratch) {
  Arena::Scope scope(scratch);
  linear_forward(exec, w.gate_up, x, saved.gu);
  Mat h = scratch.mat(x.dtype, x.rows, s.inter);
  ops::swiglu_forward(exec, saved.gu, CMat{}, h, s.limit);
  linear_forward(exec, w.down, h, y);
}

void DenseFfn::backward(const Exec& exec, const Spec& s, const Weights& w, CMat x, const Saved& saved, CMat dy, Mat dx,
                        Weights& g, Arena& scratch) {
  Arena::Scope scope(scratch);
  Mat h = scratch.mat(x.dtype, x.rows, s.inter), dh = scratch.mat(x.dtype, x.rows, s.inter);
  Mat dgu = scratch.mat(x.dtype, x.rows, 2 * s.inter);
  ops::swiglu_forward(exec, saved.gu, CMat{}, h, s.limit);
  linear_backward(exec, w.down, h, dy, dh, g.down, scratch);
  ops::swiglu_backward(exec, saved.gu, CMat{}, dh, dgu, Mat{}, s.limit);
  linear_backward(exec, w.gate_up, x, dgu, dx, g.gate_up, scratch);
}

}  // namespace birkhoff::layers
