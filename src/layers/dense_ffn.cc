#include "layers/dense_ffn.h"

namespace birkhoff::layers {

void DenseFfn::forward(const Pass& p, const Spec& s, const Weights& w, CMat x, Saved& saved, Mat y) {
  Arena::Scope scope(p.scratch);
  linear_forward(p.exec, w.gate_up, x, saved.gu);
  Mat h = p.scratch.mat(x.dtype, x.rows, s.inter);
  ops::swiglu_forward(p.exec, saved.gu, CMat{}, h, s.limit);
  linear_forward(p.exec, w.down, h, y);
}

void DenseFfn::backward(const Pass& p, const Spec& s, const Weights& w, CMat x, const Saved& saved, Cotangents d,
                        Weights& g) {
  Arena::Scope scope(p.scratch);
  Mat h = p.scratch.mat(x.dtype, x.rows, s.inter), dh = p.scratch.mat(x.dtype, x.rows, s.inter);
  Mat dgu = p.scratch.mat(x.dtype, x.rows, 2 * s.inter);
  ops::swiglu_forward(p.exec, saved.gu, CMat{}, h, s.limit);
  linear_backward(p.exec, w.down, h, d.dy, dh, g.down, p.scratch);
  ops::swiglu_backward(p.exec, saved.gu, CMat{}, dh, dgu, Mat{}, s.limit);
  linear_backward(p.exec, w.gate_up, x, dgu, d.dx, g.gate_up, p.scratch);
}

}  // namespace birkhoff::layers
