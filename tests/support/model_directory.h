// Directories of small models, and ids for them.
#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "checkpoint/hf_directory.h"
#include "support/small_model.h"

namespace birkhoff::test {

inline void write_model(const std::string& dir, const model::ModelConfig& c) {
  const Exec exec(1);
  SmallModel s(c, f32_t, 8, exec);
  std::filesystem::create_directories(dir);
  checkpoint::save_weights(dir, *s.m, model::config_to_json(s.m->config), f32_t);
}

inline std::vector<int32_t> random_ids(size_t n, int64_t vocab) {
  std::vector<int32_t> ids(n);
  for (size_t i = 0; i < n; ++i) ids[i] = static_cast<int32_t>(Rng(6).bits(i) % static_cast<uint64_t>(vocab));
  return ids;
}

}  // namespace birkhoff::test
