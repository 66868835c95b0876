#include "layers/visit.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "core/arena.h"
#include "layers/compressed_attention.h"
#include "layers/gqa.h"
#include "layers/mla.h"
#include "layers/moe.h"

namespace birkhoff::test {
namespace {

using layers::Role;

struct Seen {
  Role role;
  int64_t rows, cols;
  const void* data;
};
// Names are visited once each, in the order given.
template <class W>
std::map<std::string, Seen> visited(const W& w, const std::string& prefix, const std::vector<std::string>& names) {
  std::map<std::string, Seen> seen;
  std::vector<std::string> order;
  layers::for_each_tensor(w, prefix, [&](const std::string& name, CMat m, Role role) {
    seen[name] = {role, m.rows, m.cols, m.data};
    order.push_back(name);
  });
  std::vector<std::string> want;
  for (const std::string& n : names) want.push_back(prefix + n);
  EXPECT_EQ(order, want);
  return seen;
}

layers::Mla::Spec mla(int64_t q_lora) {
  layers::Mla::Spec s;
  s.dim = 6, s.heads = 2, s.nope = 3, s.rope = 2, s.v = 4, s.q_lora = q_lora, s.kv_lora = 5;
  return s;
}

TEST(Visit, PartsOfOneProductHaveNames) {
  const layers::Mla::Weights low(mla(7)), full(mla(0));
  const auto a = visited(low, "a.",
                         {"q_a_proj.weight", "kv_a_proj_with_mqa.weight", "q_a_layernorm.weight", "q_b_proj.weight",
                          "kv_a_layernorm.weight", "kv_b_proj.weight", "o_proj.weight"});
  EXPECT_EQ(a.at("a.q_a_proj.weight").rows, 7);
  EXPECT_EQ(a.at("a.kv_a_proj_with_mqa.weight").rows, 7);
  EXPECT_EQ(a.at("a.kv_b_proj.weight").rows, 14);
  EXPECT_EQ(a.at("a.o_proj.weight").role, Role::output_projection);
  EXPECT_EQ(a.at("a.q_a_layernorm.weight").role, Role::norm);
  const auto b = visited(
      full, "",
      {"q_proj.weight", "kv_a_proj_with_mqa.weight", "kv_a_layernorm.weight", "kv_b_proj.weight", "o_proj.weight"});
  EXPECT_EQ(b.at("q_proj.weight").rows, 10);
}

// Weights of another layer's size lie between those of this one: views of parts follow their own product.
TEST(Visit, BindingWithGapsLosesNothing) {
  layers::Gqa::Spec s;
  s.dim = 4, s.heads = 2, s.kv_heads = 1, s.head_dim = 3;
  layers::Gqa::Weights w(s);
  const std::vector<std::string> names = {"q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight"};
  for (const auto& [name, seen] : visited(w, "", names)) EXPECT_EQ(seen.data, nullptr) << name;
  EXPECT_EQ(w.qkv.w.data, nullptr) << "a visit changes nothing";

  Arena memory(1 << 16);
  std::vector<size_t> tensors;
  layers::bind_tensors(w, [&](Mat& m, size_t n) {
    memory.take<float>(100);
    m.data = memory.take<float>(m.size());
    tensors.push_back(n);
  });
  EXPECT_EQ(tensors, (std::vector<size_t>{3, 1}));
  const auto seen = visited(w, "", names);
  EXPECT_EQ(seen.at("q_proj.weight").data, w.qkv.w.f32(0));
  EXPECT_EQ(seen.at("k_proj.weight").data, w.qkv.w.f32(6));
  EXPECT_EQ(seen.at("v_proj.weight").data, w.qkv.w.f32(9));
  EXPECT_EQ(seen.at("o_proj.weight").data, w.out.w.f32());
  layers::for_each_tensor(w, "", [](const std::string&, Mat m, Role) { std::fill_n(m.f32(), m.size(), 2.f); });
  EXPECT_EQ(w.qkv.w.f32(11)[3], 2.f);
}

TEST(Visit, BiasesAndNormsOfHeads) {
  layers::Gqa::Spec s;
  s.dim = 4, s.heads = 2, s.kv_heads = 1, s.head_dim = 3, s.bias = s.norm = true;
  const layers::Gqa::Weights w(s);
  const auto seen = visited(w, "",
                            {"q_proj.weight", "k_proj.weight", "v_proj.weight", "q_proj.bias", "k_proj.bias",
                             "v_proj.bias", "q_norm.weight", "k_norm.weight", "o_proj.weight"});
  EXPECT_EQ(seen.at("q_proj.bias").role, Role::linear_bias);
  EXPECT_EQ(seen.at("q_proj.bias").cols, 6);
  EXPECT_EQ(seen.at("v_proj.bias").cols, 3);
  EXPECT_EQ(seen.at("q_norm.weight").role, Role::norm);
  EXPECT_EQ(seen.at("k_norm.weight").cols, 3);
}

TEST(Visit, GroupsShareTheirMatrix) {
  for (const int64_t groups : {1, 2}) {
    layers::CompressedAttention::Spec s;
    s.dim = 8, s.heads = 4, s.head_dim = 4, s.rope = 2, s.q_lora = 4, s.groups = groups, s.o_lora = 3, s.window = 4;
    layers::CompressedAttention::Weights w(s);
    Arena memory(1 << 16);
    layers::bind_tensors(w, [&](Mat& m, size_t) { m.data = memory.take<float>(m.size()); });
    const auto seen = visited(w, "",
                              {"q_a_proj.weight", "kv_proj.weight", "q_a_norm.weight", "q_b_proj.weight",
                               "kv_norm.weight", "sinks", "o_a_proj.weight", "o_b_proj.weight"});
    EXPECT_EQ(seen.at("o_a_proj.weight").rows, 3 * groups);
    ASSERT_EQ(w.o_a.of.size(), static_cast<size_t>(groups));
    for (int64_t g = 0; g < groups; ++g) {
      const layers::Linear& of = w.o_a.of[static_cast<size_t>(g)];
      EXPECT_EQ(of.w.f32(), w.o_a.w.f32(3 * g));
      EXPECT_EQ(of.parts.size(), groups == 1 ? 1u : 0u) << "a tensor cut into several products is no part of one";
    }
  }
}

TEST(Visit, EveryProductOnceAndWhichAreFp32) {
  layers::Moe::Spec s;
  s.dim = 4, s.inter = 3, s.shared_inter = 6, s.rule.experts = 3, s.rule.active = 1, s.rule.bias = true;
  const layers::Moe::Weights w(s);
  std::vector<std::string> products;
  layers::for_each_linear(w, "mlp.", [&](const std::string& prefix, const layers::Linear& l) {
    for (const layers::Part& p : l.parts) products.push_back(prefix + std::string(p.name) + (l.always_fp32 ? "!" : ""));
  });
  std::vector<std::string> want = {"mlp.gate!"};
  for (const char* of : {"experts.0.", "experts.1.", "experts.2.", "shared_experts."})
    for (const char* p : {"gate_proj", "up_proj", "down_proj"}) want.push_back(std::string("mlp.") + of + p);
  EXPECT_EQ(products, want);
  const auto seen =
      visited(w, "",
              {"gate.weight", "gate.e_score_correction_bias", "experts.0.gate_proj.weight", "experts.0.up_proj.weight",
               "experts.0.down_proj.weight", "experts.1.gate_proj.weight", "experts.1.up_proj.weight",
               "experts.1.down_proj.weight", "experts.2.gate_proj.weight", "experts.2.up_proj.weight",
               "experts.2.down_proj.weight", "shared_experts.gate_proj.weight", "shared_experts.up_proj.weight",
               "shared_experts.down_proj.weight"});
  EXPECT_EQ(seen.at("gate.weight").role, Role::router);
  EXPECT_EQ(seen.at("gate.e_score_correction_bias").role, Role::router_bias);
}

}  // namespace
}  // namespace birkhoff::test
