// Visiting the parameters of a layer, or of anything made of layers. Its Weights has
//   template <class W, class F> static void visit(W& w, const std::string& prefix, F&& f)
// which calls in storage order, with what W& allows,
//   f(prefix, Linear&)         a matrix that products read; its tensors are prefix + part + ".weight"
//   f(prefix, GroupedLinear&)  the same, of groups of rows
//   f(name, Mat&, Role)        every other tensor
// Initialising, binding, saving, loading, counting and the optimizer's list are a call of one of these each.
#pragma once
#include <string>
#include <type_traits>

#include "layers/linear.h"
#include "layers/parameter.h"

namespace birkhoff::layers {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

// T, or const T where W is const.
template <class W, class T>
using ConstAs = std::conditional_t<std::is_const_v<W>, const T, T>;

// f(name, tensor, role) for every tensor in storage order: views of w's memory, Mat, or CMat of a const w.
template <class W, class F>
void for_each_tensor(W& w, const std::string& prefix, F&& f) {
  using View = std::conditional_t<std::is_const_v<W>, CMat, Mat>;
  std::remove_const_t<W>::visit(
      w, prefix,
      Overloaded{[&](const std::string& p, ConstAs<W, Linear>& l) {
                   int64_t row = 0;
                   for (const Part& part : l.parts) {
                     f(p + std::string(part.name) + ".weight", View(l.w.row_block(row, part.rows)), part.role);
                     row += part.rows;
                   }
                 },
                 [&](const std::string& p, ConstAs<W, GroupedLinear>& l) {
                   f(p + std::string(l.part.name) + ".weight", View(l.w), l.part.role);
                 },
                 [&](const std::string& name, ConstAs<W, Mat>& m, Role role) { f(name, View(m), role); }});
}

// f(prefix, Linear&) for everything that is multiplied through packed copies.
template <class W, class F>
void for_each_linear(W& w, const std::string& prefix, F&& f) {
  std::remove_const_t<W>::visit(w, prefix,
                                Overloaded{[&](const std::string& p, ConstAs<W, Linear>& l) { f(p, l); },
                                           [&](const std::string& p, ConstAs<W, GroupedLinear>& l) {
                                             for (auto& group : l.of) f(p, group);
                                           },
                                           [](const std::string&, ConstAs<W, Mat>&, Role) {}});
}

// Gives the tensors memory: place(m, n) sets m.data to the memory, or none, of the next n tensors, which lie in it
// without a gap.
template <class W, class F>
void bind_tensors(W& w, F&& place) {
  W::visit(w, "",
           Overloaded{[&](const std::string&, Linear& l) { place(l.w, l.parts.size()); },
                      [&](const std::string&, GroupedLinear& l) {
                        place(l.w, size_t{1});
                        l.share();
                      },
                      [&](const std::string&, Mat& m, Role) { place(m, size_t{1}); }});
}

}  // namespace birkhoff::layers
