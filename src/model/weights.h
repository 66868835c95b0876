// All parameters of a model, by layer. The same struct holds gradients (fp32 matrices, no packed copies).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "layers/visit.h"
#include "model/config/config.h"
#include "ops/residual/residual.h"

namespace birkhoff::model {

struct BlockWeights {
  ops::SiteWeights attn_site, ffn_site;
  AttentionWeights attn;
  FfnWeights ffn;
};

// What a multi-token prediction module has besides its block (mtp.h).
struct MtpWeights {
  Mat enorm, hnorm;               // [1, D]
  layers::Linear proj;            // one stream: eh_proj [D, 2D]
  layers::Linear e_proj, h_proj;  // several: [D, D] each
  ops::HeadWeights hc_head;       // several: their collapse
  Mat norm;                       // [1, D] before the shared head
};

struct Weights {
  Mat embed;                         // [V, D]
  std::vector<BlockWeights> blocks;  // of the model, then one of every prediction module
  std::vector<MtpWeights> mtp;
  ops::HeadWeights hc_head;
  Mat norm;             // [1, D] before the head
  layers::Linear head;  // [V, D]; tied: head.w is embed
  bool tied = false;

  // Shapes without memory.
  explicit Weights(const ModelConfig& c);

  // f(name, Mat, Role) for every tensor under its V3 name, in storage order; of const weights f(name, CMat, Role). A
  // tied head is not visited.
  template <class F>
  void for_each(F&& f) {
    layers::for_each_tensor(*this, "", f);
  }
  template <class F>
  void for_each(F&& f) const {
    layers::for_each_tensor(*this, "", f);
  }
  // f(prefix, Linear&) for everything that is multiplied through packed copies, the head last.
  template <class F>
  void for_each_linear(F&& f) {
    layers::for_each_linear(*this, "", f);
    if (tied) f("", head);
  }
  // Gives tensors memory as layers::bind_tensors; a tied head shares the embedding's.
  template <class F>
  void bind(F&& place) {
    layers::bind_tensors(*this, place);
    if (tied) head.w = embed;
  }

  template <class W, class F>
  static void visit(W& w, const std::string& prefix, F&& f) {
    using layers::Role;
    f(prefix + "model.embed_tokens.weight", w.embed, Role::embedding);
    const size_t main_blocks = w.blocks.size() - w.mtp.size();
    for (size_t i = 0; i < w.blocks.size(); ++i) {
      const std::string p = prefix + "model.layers." + std::to_string(i) + ".";
      if (i >= main_blocks) visit_mtp(w.mtp[i - main_blocks], p, f);
      visit_block(w.blocks[i], p, f);
    }
    visit_head(w.hc_head, prefix + "model.hc_head_", f);
    f(prefix + "model.norm.weight", w.norm, Role::norm);
    if (!w.tied) f(prefix, w.head);
  }

 private:
  template <class W, class F>
  static void visit_block(W& b, const std::string& p, F& f) {
    const auto visit_layer = [&](const std::string& name) {
      return [&f, at = p + name](auto& w) { std::decay_t<decltype(w)>::visit(w, at, f); };
    };
    f(p + "input_layernorm.weight", b.attn_site.norm, layers::Role::norm);
    visit_site(b.attn_site, p + "hc_attn_", f);
    std::visit(visit_layer("self_attn."), b.attn);
    f(p + "post_attention_layernorm.weight", b.ffn_site.norm, layers::Role::norm);
    visit_site(b.ffn_site, p + "hc_ffn_", f);
    std::visit(visit_layer("mlp."), b.ffn);
  }
  template <class W, class F>
  static void visit_mtp(W& module, const std::string& p, F& f) {
    using layers::Role;
    f(p + "enorm.weight", module.enorm, Role::norm);
    f(p + "hnorm.weight", module.hnorm, Role::norm);
    if (module.proj.out()) {
      f(p, module.proj);
      f(p + "shared_head.norm.weight", module.norm, Role::norm);
    } else {
      f(p, module.e_proj);
      f(p, module.h_proj);
      visit_head(module.hc_head, p + "hc_head_", f);
      f(p + "norm.weight", module.norm, Role::norm);
    }
  }
  template <class W, class F>
  static void visit_head(W& h, const std::string& p, F& f) {
    using layers::Role;
    if (h.fn.empty()) return;
    f(p + "fn", h.fn, Role::hc_fn);
    f(p + "scale", h.scale, Role::hc_scale);
    f(p + "base", h.base, Role::hc_base);
  }
  template <class W, class F>
  static void visit_site(W& s, const std::string& p, F& f) {
    using layers::Role;
    if (s.fn.empty()) return;
    f(p + "fn", s.fn, Role::hc_fn);
    if (!s.hc_norm.empty()) f(p + "norm", s.hc_norm, Role::norm);
    f(p + "scale", s.scale, Role::hc_scale);
    f(p + "base", s.base, Role::hc_base);
  }
};

// One tensor of the contiguous fp32 block that holds all parameters.
struct ParameterInfo {
  std::string name;
  layers::Role role;
  int64_t offset, rows, cols;
  int64_t size() const { return rows * cols; }
};
std::vector<ParameterInfo> list_parameters(const Weights& w);  // offsets in elements, without gaps
int64_t parameter_elements(const std::vector<ParameterInfo>& list);
// Points every tensor into the block.
void bind(Weights& w, float* block);

// The stream of random numbers that a tensor of this name draws from.
uint64_t name_key(const std::string& name);
// Fills the bound weights. Every tensor draws from its own stream, keyed by seed and name. Scheme: linear layers and
// embedding N(0, initializer_range), norms 1, hyper-connections as mhc.md 1.6 (settings hc_init_*), biases 0.
void initialise(const ModelConfig& c, Weights& w, uint64_t seed);

}  // namespace birkhoff::model
