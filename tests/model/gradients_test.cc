// Loss and gradients of whole models against the plain specification: every tensor along random directions, the
// specification's derivative by complex steps; and the same bits under every recompute policy.
#include <gtest/gtest.h>

#include <functional>

#include "support/layer_case.h"
#include "support/model_reference.h"
#include "support/places.h"
#include "support/small_model.h"

namespace birkhoff::test {
namespace {

using model::ModelConfig;

constexpr int kDirections = 2;  // per tensor
constexpr float kZ = 0.01f, kBalanceScale = 0.6f;

struct Variant {
  const char* name;
  ModelConfig config;
  bool experts = true;
  Variant(
      const char* n, ModelConfig c, const std::function<void(ModelConfig&)>& change = [](ModelConfig&) {})
      : name(n), config(std::move(c)) {
    change(config);
    model::validate(config);
    experts = config.n_routed_experts > 0;
  }
};

void no_experts(ModelConfig& c) { c.n_routed_experts = c.n_shared_experts = 0; }

std::vector<Variant> variants() {
  const auto paper = [](ModelConfig& c) { c.hc_convention = ops::HcConvention::paper; };
  return {
      {"plain, MLA, experts", small_config("plain")},
      {"plain, MLA without q_lora, tied", small_config("plain"),
       [](ModelConfig& c) { c.q_lora_rank = 0, c.tie_word_embeddings = true; }},
      {"plain, GQA, dense", small_config("plain", 1, false), no_experts},
      {"plain, GQA with biases, dense", small_qwen_config(true, false)},
      {"plain, GQA with norms of heads, dense, tied", small_qwen_config(false, true),
       [](ModelConfig& c) { c.tie_word_embeddings = true, c.rms_norm_eps = 1e-3; }},
      {"mhc, GQA with biases and norms of heads", small_config("mhc", 4, false),
       [](ModelConfig& c) { c.qkv_bias = c.qk_norm = true; }},
      {"plain, GQA, softmax experts everywhere, tied", small_config("plain", 1, false),
       [](ModelConfig& c) {
         c.first_k_dense_replace = 0, c.scoring_func = ops::Scoring::softmax, c.topk_method = model::TopkMethod::greedy,
         c.norm_topk_prob = false, c.tie_word_embeddings = true;
       }},
      {"hc, dynamic", small_config("hc", 3)},
      {"hc, static", small_config("hc", 2), [](ModelConfig& c) { c.hc_dynamic = false; }},
      {"hc, fixed pre", small_config("hc", 4), [](ModelConfig& c) { c.hc_pre = model::HcMap::fixed; }},
      {"mhc, v4", small_config("mhc", 4)},
      {"mhc, v4, GQA, tied, sum", small_config("mhc", 2, false),
       [](ModelConfig& c) { c.tie_word_embeddings = true, c.hc_head = model::HcHead::sum; }},
      {"mhc, paper", small_config("mhc", 4), paper},
      {"mhc, paper, five streams, three iterations", small_config("mhc", 5),
       [&](ModelConfig& c) { paper(c), c.hc_sinkhorn_iters = 3; }},
      {"mhc, one stream", small_config("mhc", 1)},
      {"mhc, eight streams, no experts", small_config("mhc", 8), no_experts},
      {"mhc, lite", with_form(small_config("mhc", 4), "lite")},
      {"mhc, lite, paper, three streams", with_form(small_config("mhc", 3), "lite"), paper},
      {"mhc, lite, five streams, GQA, no experts", with_form(small_config("mhc", 5, false), "lite"), no_experts},
      {"mhc, lite, fixed res", with_form(small_config("mhc", 4), "lite"),
       [](ModelConfig& c) { c.hc_res = model::HcMap::fixed; }},
      {"mhc, kron", with_form(small_config("mhc", 4), "kron")},
      {"mhc, kron, paper, two streams", with_form(small_config("mhc", 2), "kron"), paper},
      {"mhc, kron, eight streams, GQA, no experts", with_form(small_config("mhc", 8, false), "kron"), no_experts},
      {"mhc, fixed res", small_config("mhc", 4), [](ModelConfig& c) { c.hc_res = model::HcMap::fixed; }},
      {"mhc, fixed post and pre", small_config("mhc", 4),
       [](ModelConfig& c) { c.hc_post = c.hc_pre = model::HcMap::fixed; }},
      {"mhc, all fixed", small_config("mhc", 4),
       [](ModelConfig& c) { c.hc_res = c.hc_post = c.hc_pre = model::HcMap::fixed; }},
  };
}

struct Data {
  std::vector<int32_t> ids, labels;
  Packed at{13, {0, 5, 8}, {0, 8}};  // two sequences; the first holds two documents
  explicit Data(int64_t vocab) {
    const Rng rng(5);
    for (uint64_t t = 0; t < 13; ++t) {
      ids.push_back(static_cast<int32_t>(rng.bits(t) % static_cast<uint64_t>(vocab)));
      labels.push_back(static_cast<int32_t>(rng.bits(100 + t) % static_cast<uint64_t>(vocab)));
    }
    ids[3] = ids[10] = ids[2];  // rows of the embedding that several tokens add to
    labels[4] = labels[7] = labels[12] = kIgnoreLabel;
  }
  reference::Places places() const { return {at.position, at.first_key}; }
};

struct Derivative {
  std::string tensor;
  std::vector<double> direction;
  double want;
};

std::vector<Derivative> derivatives(const reference::Model& spec, const Tensors<double>& w, const Data& d,
                                    double scale) {
  std::vector<Derivative> out;
  Tensors<reference::Complex> z = reference::lift(w);
  uint64_t stream = 0;
  for (auto& [name, v] : z) {
    for (int k = 0; k < kDirections; ++k) {
      Derivative e{name, {}, 0};
      const Rng rng(77, stream++);
      for (size_t i = 0; i < v.size(); ++i) {
        e.direction.push_back(rng.normal(i));
        v[i] = {w.at(name)[i], 1e-50 * e.direction[i]};
      }
      const auto r = spec.loss(z, d.ids, d.labels, d.places(), d.at.sequence_start);
      e.want =
          (scale * (r.cross_entropy + static_cast<double>(kZ) * r.z) + static_cast<double>(kBalanceScale) * r.balance)
              .imag() /
          1e-50;
      out.push_back(e);
    }
    for (auto& x : v) x = x.real();
  }
  return out;
}

double norm(const std::vector<double>& v) {
  double s = 0;
  for (double x : v) s += x * x;
  return std::sqrt(s);
}

// <g, v> for v ~ N(0, 1) has the size of |g|, so an error of `relative` in the elements moves it by relative * |g|,
// times 4 standard deviations. Where terms cancel (a collapse of one stream is scale-free: its gradient is zero but for
// eps) rounding is relative to the terms, which are as large as other gradients: `rounding` of the largest.
void expect_derivatives(const Tensors<double>& got, const std::vector<Derivative>& want, double relative,
                        double rounding) {
  double most = 0;
  for (const auto& [name, g] : got) most = std::max(most, norm(g));
  for (const Derivative& d : want) {
    const auto& g = got.at(d.tensor);
    double along = 0;
    for (size_t i = 0; i < g.size(); ++i) along += g[i] * d.direction[i];
    if (d.tensor.find("e_score_correction_bias") != std::string::npos) {
      EXPECT_EQ(norm(g), 0.0) << d.tensor;
      continue;
    }
    EXPECT_NEAR(along, d.want, 4 * relative * norm(g) + rounding * most) << d.tensor;
  }
}

reference::Balance turn_on_balance(model::Model& m, bool on) {
  if (!on) return {};
  for (auto& block : m.blocks) {
    auto* moe = std::get_if<layers::Moe::Spec>(&block.ffn);
    if (!moe) continue;
    auto& b = moe->balance;
    b.expert = 0.1, b.device = 0.15, b.communication = 0.2, b.sequence = 0.25, b.mixtral = 0.3, b.devices = 2,
    b.devices_per_token = 1;
  }
  return {0.1, 0.15, 0.2, 0.25, 0.3, 2, 1};
}

void check(const Variant& v, DType t) {
  SCOPED_TRACE(std::string(v.name) + " " + dtype_name(t));
  const Data d(v.config.vocab_size);
  const Exec exec(2);
  SmallModel model(v.config, t, 21, exec);
  const reference::Model spec = reference_of(v.config, turn_on_balance(*model.m, v.experts));
  const auto w = model.values();
  const double counted = 10, scale = 1 / counted;
  const auto want = spec.loss(w, d.ids, d.labels, d.places(), d.at.sequence_start);
  const auto directions = derivatives(spec, w, d, scale);
  // Two layers of about 12 ops forward and as many back; independent roundings add like a random walk, so sqrt(48)
  // stages.
  const double relative = chain_tolerance(7, 32, t), rounding = t == f32_t ? 64 * 0x1p-24 : 2 * 0x1p-9;
  model::LossOptions loss;
  loss.scale = static_cast<float>(scale), loss.z_coef = kZ, loss.balance_scale = kBalanceScale;
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    SCOPED_TRACE(isa_name(isa));
    model.m->refresh(exec);
    const auto r = model.step(exec, d.ids, d.labels, d.at.context(), loss);
    EXPECT_EQ(r.sums.tokens, 10);
    EXPECT_NEAR(r.sums.cross_entropy, want.cross_entropy, relative * want.cross_entropy);
    EXPECT_NEAR(r.sums.z, want.z, 2 * relative * want.z);
    EXPECT_NEAR(r.balance, want.balance, relative * (want.balance + 1));
    expect_derivatives(model.gradients(), directions, relative, rounding);
    EXPECT_EQ(model.scratch.used(), 0u);

    const auto bits = model.gradient_bits();
    for (auto policy : {model::Recompute::site, model::Recompute::layer}) {
      const auto again = model.step(exec, d.ids, d.labels, d.at.context(), loss, policy);
      EXPECT_EQ(again.sums.cross_entropy, r.sums.cross_entropy);
      EXPECT_EQ(model.gradient_bits(), bits) << "recompute policy " << static_cast<int>(policy);
    }
  }
}

class Gradients : public testing::TestWithParam<size_t> {};

TEST_P(Gradients, Fp32) { check(variants()[GetParam()], f32_t); }

// bf16 against the same specification, where no expert choice can flip on a rounding.
TEST_P(Gradients, Bf16WithoutExperts) {
  const Variant v(variants()[GetParam()].name, variants()[GetParam()].config, no_experts);
  check(v, bf16_t);
}

INSTANTIATE_TEST_SUITE_P(Models, Gradients, testing::Range<size_t>(0, variants().size()));

}  // namespace
}  // namespace birkhoff::test
