// Mixture of experts (models.md B-E): fine-grained routed experts, shared experts as one wide network, dropless,
// grouped by expert.
#pragma once
#include <string>
#include <vector>

#include "layers/dense_ffn.h"
#include "ops/experts/balance.h"

namespace birkhoff::layers {

struct Moe {
  struct Spec {
    using Layer = Moe;
    int64_t dim = 0, inter = 0;  // width of one routed expert
    int64_t shared_inter = 0;    // width of all shared experts together, 0 = none
    ops::RouterRule rule;
    ops::BalanceCoefficients balance;  // training only
    float limit = ops::kNoLimit;       // swiglu_limit, of routed and shared experts
    int64_t hash_vocab = 0;            // > 0: experts are looked up by token id in a table of so many rows
    DenseFfn::Spec expert() const { return {dim, inter, limit}; }
    DenseFfn::Spec shared() const { return {dim, shared_inter, limit}; }
  };
  struct Weights {
    Linear router;  // gate.weight [E, D], always multiplied in fp32
    Mat bias;       // e_score_correction_bias [1, E] when the rule has one
    Mat table;      // tid2eid [hash_vocab, K], whole numbers
    std::vector<DenseFfn::Weights> experts;
    DenseFfn::Weights shared;
    Weights() = default;
    explicit Weights(const Spec& s);
    template <class W, class F>
    static void visit(W& w, const std::string& p, F&& f) {
      f(p, w.router);
      if (!w.bias.empty()) f(p + "gate.e_score_correction_bias", w.bias, Role::router_bias);
      if (!w.table.empty()) f(p + "gate.tid2eid", w.table, Role::expert_table);
      for (size_t e = 0; e < w.experts.size(); ++e)
        DenseFfn::Weights::visit(w.experts[e], p + "experts." + std::to_string(e) + ".", f);
      if (w.shared.inter()) DenseFfn::Weights::visit(w.shared, p + "shared_experts.", f);
    }
  };
  // Routing is kept under every recompute policy; the rest may be rebuilt by a second forward.
  struct Saved {
    ops::Routing routing;
    Mat logits;      // [T, E] fp32
    Mat rows, gu;    // dispatched inputs [T*K, D], [T*K, 2F]
    Mat row_weight;  // [T*K, 1] fp32
    DenseFfn::Saved shared;
  };
  static void reserve_routing(Arena& arena, const Spec& s, int64_t tokens, Saved& saved);
  static void reserve_activations(Arena& arena, const Spec& s, DType dtype, int64_t tokens, Saved& saved);

  // route fills saved.routing; forward needs it and computes y. Recomputation repeats forward alone.
  static void route(const Pass& p, const Spec& s, const Weights& w, CMat x, Saved& saved);
  static void forward(const Pass& p, const Spec& s, const Weights& w, CMat x, Saved& saved, Mat y);
  // Adds the balance losses of this layer to `balance` and their gradient to the router's.
  static void backward(const Pass& p, const Spec& s, const Weights& w, CMat x, const Saved& saved, Cotangents d,
                       Weights& grad, ops::BalanceLoss& balance);
};

}  // namespace birkhoff::layers
