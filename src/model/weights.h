// All parameters of a model, by layer. The same struct holds gradients (fp32 matrices, no packed copies).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "layers/parameter.h"
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

  // f(name, Mat&, Role) for every tensor under its V3 name, in storage order. A tied head is not visited.
  template <class F>
  void for_each(F&& f) {
    using layers::Role;
    f("model.embed_tokens.weight", embed, Role::embedding);
    const size_t main_blocks = blocks.size() - mtp.size();
    for (size_t i = 0; i < blocks.size(); ++i) {
      BlockWeights& b = blocks[i];
      const std::string p = "model.layers." + std::to_string(i) + ".";
      if (i >= main_blocks) {
        MtpWeights& module = mtp[i - main_blocks];
        f(p + "enorm.weight", module.enorm, Role::norm);
        f(p + "hnorm.weight", module.hnorm, Role::norm);
        if (module.proj.out()) {
          f(p + "eh_proj.weight", module.proj.w, Role::matrix);
          f(p + "shared_head.norm.weight", module.norm, Role::norm);
        } else {
          f(p + "e_proj.weight", module.e_proj.w, Role::matrix);
          f(p + "h_proj.weight", module.h_proj.w, Role::matrix);
          for_each_head(p + "hc_head_", module.hc_head, f);
          f(p + "norm.weight", module.norm, Role::norm);
        }
      }
      f(p + "input_layernorm.weight", b.attn_site.norm, Role::norm);
      for_each_hc(p + "hc_attn_", b.attn_site, f);
      std::visit([&](auto& a) { a.for_each(p + "self_attn.", f); }, b.attn);
      f(p + "post_attention_layernorm.weight", b.ffn_site.norm, Role::norm);
      for_each_hc(p + "hc_ffn_", b.ffn_site, f);
      std::visit([&](auto& a) { a.for_each(p + "mlp.", f); }, b.ffn);
    }
    for_each_head("model.hc_head_", hc_head, f);
    f("model.norm.weight", norm, Role::norm);
    if (tied)
      head.w = embed;
    else
      f("lm_head.weight", head.w, Role::head);
  }

  // f(Linear&, compute_type_is_fp32) for everything that is multiplied through packed copies.
  template <class F>
  void for_each_linear(F&& f) {
    for (BlockWeights& b : blocks) {
      std::visit([&](auto& a) { for_each_linear_of(a, f); }, b.attn);
      std::visit([&](auto& a) { a.for_each_linear([&](layers::Linear& l) { f(l, false); }); }, b.ffn);
      if (auto* moe = std::get_if<layers::Moe::Weights>(&b.ffn)) f(moe->router, true);
    }
    for (MtpWeights& module : mtp)
      for (layers::Linear* l : {&module.proj, &module.e_proj, &module.h_proj})
        if (l->out()) f(*l, false);
    f(head, false);
  }

 private:
  template <class W, class F>
  static void for_each_linear_of(W& w, F& f) {
    w.for_each_linear([&](layers::Linear& l) { f(l, false); });
    if constexpr (requires { w.for_each_fp32_linear([](layers::Linear&) {}); })
      w.for_each_fp32_linear([&](layers::Linear& l) { f(l, true); });
  }
  template <class F>
  static void for_each_head(const std::string& p, ops::HeadWeights& h, F& f) {
    using layers::Role;
    if (h.fn.empty()) return;
    f(p + "fn", h.fn, Role::hc_fn);
    f(p + "scale", h.scale, Role::hc_scale);
    f(p + "base", h.base, Role::hc_base);
  }
  template <class F>
  static void for_each_hc(const std::string& p, ops::SiteWeights& s, F& f) {
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
std::vector<ParameterInfo> list_parameters(Weights& w);  // offsets in elements, without gaps
int64_t parameter_elements(const std::vector<ParameterInfo>& list);
// Points every tensor into the block.
void bind(Weights& w, float* block);

// The stream of random numbers that a tensor of this name draws from.
uint64_t name_key(const std::string& name);
// Fills the bound weights. Every tensor draws from its own stream, keyed by seed and name. Scheme: linear layers and
// embedding N(0, initializer_range), norms 1, hyper-connections as mhc.md 1.6 (settings hc_init_*), biases 0.
void initialise(const ModelConfig& c, Weights& w, uint64_t seed);

}  // namespace birkhoff::model
