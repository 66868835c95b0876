// LoRA (Hu et al. 2021) on the linear layers of a model: which modules get an adapter, and where its matrices are. A
// module is a matrix of the model under its V3 name without ".weight" ("model.layers.0.self_attn.q_proj"); several may
// share one layers::Linear.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "model/weights.h"

namespace birkhoff::model {

inline constexpr int64_t kMaxLoraRank = 1 << 16;

struct LoraSpec {
  int64_t rank = 0;                  // 0: no adapters
  double alpha = 0;                  // the product of an adapter is scaled by alpha / rank
  std::vector<std::string> modules;  // names, in the order of the model's parameters

  bool empty() const { return rank == 0; }
  float scale() const { return static_cast<float>(alpha / static_cast<double>(rank)); }
};

// Every module that can have an adapter: linear layers of attention, dense, shared and routed feed-forward networks of
// the model's own blocks (not of prediction modules); neither routers nor the head.
std::vector<std::string> lora_candidates(const ModelConfig& c);
bool is_routed_expert(const std::string& module);

// Modules named by targets, comma-separated last parts of names as in PEFT ("q_proj,kv_b_proj"). "experts": all
// matrices of the routed experts, which no other target reaches. "": every candidate but the routed experts and what
// only chooses keys (indexers). Throws Error with the nearest name.
std::vector<std::string> lora_modules(const ModelConfig& c, const std::string& targets);

// Gives the Linears of w the adapters of `spec`, shapes without memory. Throws Error for a module that is no candidate,
// or when some but not all experts of a layer have an adapter.
void add_adapters(const ModelConfig& c, const LoraSpec& spec, Weights& w);

// The matrices of all adapters, module.lora_A.weight [r, in] and module.lora_B.weight [out, r] in turn; offsets from 0,
// without gaps.
std::vector<ParameterInfo> list_adapters(const ModelConfig& c, const LoraSpec& spec, Weights& w);
// f(Mat&) for each of them in the same order.
template <class F>
void for_each_adapter_matrix(Weights& w, F&& f) {
  w.for_each_linear([&](const std::string&, layers::Linear& l) {
    for (layers::Adapter& a : l.adapters) f(a.a), f(a.b);
  });
}

// A as PEFT does, Kaiming uniform with slope sqrt(5): U(-1/sqrt(in), 1/sqrt(in)); B zero. Every matrix draws from its
// own stream of the seed.
void initialise_adapters(const std::vector<ParameterInfo>& list, float* block, uint64_t seed);

}  // namespace birkhoff::model
