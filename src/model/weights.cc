#include "model/weights.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "core/error.h"
#include "core/rng.h"

namespace birkhoff::model {
namespace {

using layers::Role;

Mat shape(int64_t rows, int64_t cols) { return Mat(nullptr, DType::f32, rows, cols); }

ops::SiteWeights site_weights(const ops::ResidualSpec& s) {
  ops::SiteWeights w;
  w.norm = shape(1, s.dim);
  if (s.kind == ops::ResidualKind::plain) return w;
  const bool mhc = s.kind == ops::ResidualKind::mhc;
  w.fn = mhc ? shape(s.coefficients(), s.streams * s.dim) : shape(s.streams + 2, s.dim);
  if (!mhc) w.hc_norm = shape(1, s.dim);
  w.scale = shape(1, mhc ? 3 : 2);
  w.base = shape(1, s.coefficients());
  return w;
}

void fill(Mat m, float v) { std::fill(m.f32(), m.f32() + m.size(), v); }

void fill_normal(Mat m, double sd, uint64_t seed, const std::string& name) {
  const Rng rng(seed, name_key(name));
  float* p = m.f32();
  for (int64_t i = 0; i < m.size(); ++i) p[i] = static_cast<float>(sd * rng.normal(static_cast<uint64_t>(i)));
}

// Hash routing from scratch: every token id gets `m.cols` different experts, uniformly (the table of the released
// models is unpublished).
void fill_experts(Mat m, int64_t experts, uint64_t seed, const std::string& name) {
  const Rng rng(seed, name_key(name));
  std::vector<float> order(static_cast<size_t>(experts));
  for (int64_t row = 0; row < m.rows; ++row) {
    std::iota(order.begin(), order.end(), 0.f);
    for (int64_t k = 0; k < m.cols; ++k) {  // the first steps of a shuffle
      const uint64_t pick = rng.bits(static_cast<uint64_t>(row * m.cols + k)) % static_cast<uint64_t>(experts - k);
      std::swap(order[static_cast<size_t>(k)], order[static_cast<size_t>(k) + pick]);
      m.f32(row)[k] = order[static_cast<size_t>(k)];
    }
  }
}

// Static parts of a site: what the coefficients are when the dynamic part is silent.
void initialise_base(const ModelConfig& c, int64_t site, Mat base) {
  const int64_t n = c.streams();
  float* pre = base.f32();
  float* post = pre + n;
  float* res = post + n;
  const bool mhc = c.residual == ops::ResidualKind::mhc;
  for (int64_t j = 0; j < n; ++j) {
    const bool chosen = j == site % n;
    if (mhc)
      pre[j] = c.hc_init_pre == HcInitPre::zero ? 0.f : chosen ? 1.f : -1.f;
    else
      pre[j] = chosen ? 1.f : 0.f;
    post[j] = mhc ? 0.f : 1.f;  // 2 sigmoid(0) = 1
  }
  // H_res near the identity: logit 0 there and hc_init_res_off elsewhere; of hc the identity itself.
  const ops::ResForm form = c.residual_spec().res_form;
  const int64_t logits = ops::res_logits(form, n);
  const auto of_identity = [&](int64_t i) {
    return form == ops::ResForm::sinkhorn ? i / n == i % n : form == ops::ResForm::lite ? i == 0 : i % 2 == 0;
  };
  for (int64_t i = 0; i < logits; ++i)
    res[i] = of_identity(i) ? (mhc ? 0.f : 1.f) : mhc ? static_cast<float>(c.hc_init_res_off) : 0.f;
}

// A released model has some ten thousand. Listing very many takes minutes and gigabytes, and ends in a plan that fits
// nowhere.
constexpr int64_t kMostExperts = int64_t{1} << 18;

void require_countable(const ModelConfig& c) {
  int64_t experts = 0;
  for (int64_t i = 0; i < c.blocks(); ++i) experts += c.is_moe_layer(i) ? c.n_routed_experts : 0;
  if (experts > kMostExperts)
    throw Error("config",
                std::to_string(c.blocks()) + " layers of n_routed_experts " + std::to_string(c.n_routed_experts) +
                    " make " + std::to_string(experts) + " experts, at most " + std::to_string(kMostExperts) +
                    " are planned",
                "lower num_hidden_layers or n_routed_experts; inspect describes such models");
}

}  // namespace

uint64_t name_key(const std::string& name) {  // FNV-1a
  uint64_t h = 0xcbf29ce484222325ull;
  for (const char ch : name) h = (h ^ static_cast<unsigned char>(ch)) * 0x100000001b3ull;
  return h;
}

Weights::Weights(const ModelConfig& c)
    : embed(shape(c.vocab_size, c.hidden_size)), norm(shape(1, c.hidden_size)), tied(c.tie_word_embeddings) {
  require_countable(c);
  const ops::ResidualSpec residual = c.residual_spec();
  head = layers::Linear({{"lm_head", c.vocab_size, Role::head}}, c.hidden_size);
  blocks.resize(static_cast<size_t>(c.blocks()));
  for (int64_t i = 0; i < c.blocks(); ++i) {
    BlockWeights& b = blocks[static_cast<size_t>(i)];
    b.attn_site = site_weights(residual);
    b.ffn_site = site_weights(residual);
    const BlockSpec spec = c.block_spec(i);
    std::visit([&](const auto& s) { b.attn = typename LayerOf<std::decay_t<decltype(s)>>::Weights(s); }, spec.attn);
    std::visit([&](const auto& s) { b.ffn = typename LayerOf<std::decay_t<decltype(s)>>::Weights(s); }, spec.ffn);
  }
  const auto collapse = [&] {
    if (residual.kind != ops::ResidualKind::mhc || c.hc_head != HcHead::learned) return ops::HeadWeights{};
    return ops::HeadWeights{shape(residual.streams, residual.streams * residual.dim), shape(1, 1),
                            shape(1, residual.streams)};
  };
  hc_head = collapse();
  for (int64_t k = 0; k < c.num_nextn_predict_layers; ++k) {
    const int64_t D = c.hidden_size;
    MtpWeights module{shape(1, D), shape(1, D), {}, {}, {}, collapse(), shape(1, D)};
    if (residual.kind == ops::ResidualKind::plain) {
      module.proj = layers::Linear({{"eh_proj", D}}, 2 * D);
    } else {
      module.e_proj = layers::Linear({{"e_proj", D}}, D);
      module.h_proj = layers::Linear({{"h_proj", D}}, D);
    }
    mtp.push_back(module);
  }
}

std::vector<ParameterInfo> list_parameters(const Weights& w) {
  std::vector<ParameterInfo> list;
  int64_t offset = 0;
  w.for_each([&](const std::string& name, CMat m, Role role) {
    list.push_back({name, role, offset, m.rows, m.cols});
    offset += m.size();
  });
  return list;
}

int64_t parameter_elements(const std::vector<ParameterInfo>& list) {
  return list.empty() ? 0 : list.back().offset + list.back().size();
}

void bind(Weights& w, float* block) {
  int64_t offset = 0;
  w.bind([&](Mat& m, size_t) {
    m.data = block + offset;
    offset += m.size();
  });
}

void initialise(const ModelConfig& c, Weights& w, uint64_t seed) {
  w.for_each([&](const std::string& name, Mat m, Role role) {
    switch (role) {
      case Role::matrix:
      case Role::output_projection:
      case Role::embedding:
      case Role::head:
      case Role::router:
        fill_normal(m, c.initializer_range, seed, name);
        break;
      case Role::norm:
        fill(m, 1.f);
        break;
      case Role::router_bias:
      case Role::bias:
      case Role::linear_bias:
      case Role::position_bias:
        fill(m, 0.f);
        break;
      case Role::expert_table:
        fill_experts(m, c.n_routed_experts, seed, name);
        break;
      case Role::hc_fn:
        fill_normal(m, c.residual == ops::ResidualKind::mhc ? c.hc_init_phi_std : 0.0, seed, name);
        break;
      case Role::hc_scale:
        fill(m, static_cast<float>(c.hc_init_scale));
        break;
      case Role::hc_base:
        fill(m, 0.f);
        break;
    }
  });
  if (c.residual == ops::ResidualKind::plain) return;
  for (size_t i = 0; i < w.blocks.size(); ++i) {
    initialise_base(c, static_cast<int64_t>(2 * i), w.blocks[i].attn_site.base);
    initialise_base(c, static_cast<int64_t>(2 * i + 1), w.blocks[i].ffn_site.base);
  }
}

}  // namespace birkhoff::model
