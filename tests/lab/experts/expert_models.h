// Models with experts of every router, written as directories that an engine opens.
#pragma once
#include <functional>
#include <nlohmann/json.hpp>

#include "checkpoint/hf_directory.h"
#include "core/rng.h"
#include "infer/engine.h"
#include "support/small_model.h"
#include "support/temp_dir.h"

namespace birkhoff::test {

// change: of the weights before they are written.
inline void write_model(const std::string& dir, const model::ModelConfig& c,
                        const std::function<void(model::Model&)>& change = {}) {
  const Exec exec(1);
  SmallModel s(c, f32_t, 8, exec);
  if (change) change(*s.m);
  std::filesystem::create_directories(dir);
  checkpoint::save_weights(dir, *s.m, model::config_to_json(s.m->config), f32_t);
}

inline infer::EngineOptions fp32() {
  infer::EngineOptions o;
  o.compute = "fp32", o.threads = 2;
  return o;
}

inline std::string random_text(size_t n, uint64_t seed = 4) {
  std::string s(n, ' ');
  for (size_t i = 0; i < n; ++i) s[i] = static_cast<char>(Rng(seed).bits(i) % 256);
  return s;
}

struct NamedConfig {
  std::string name;
  model::ModelConfig config;
};
// 8 experts, 3 of them active, 1 shared; the grouped ones choose among 4 experts.
inline std::vector<NamedConfig> router_configs() {
  model::ModelConfig noaux = wide_config("mhc"), greedy = noaux;
  greedy.scoring_func = ops::Scoring::softmax, greedy.topk_method = model::TopkMethod::greedy,
  greedy.norm_topk_prob = false, greedy.n_group = greedy.topk_group = 1;
  model::ModelConfig grouped = greedy;
  grouped.topk_method = model::TopkMethod::group_limited_greedy, grouped.n_group = 4, grouped.topk_group = 2;
  return {{"softmax_topk", greedy},
          {"group_limited_greedy", grouped},
          {"noaux_tc", noaux},
          {"sqrtsoftplus", wide_v4_config()}};
}

}  // namespace birkhoff::test
