// A reference checkpoint of tests/golden/cases with its goldens, opened by name, and a model filled from it.
#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>

#include "checkpoint/hf_directory.h"
#include "io/json_file.h"
#include "model/transformer.h"
#include "support/golden.h"

namespace birkhoff::test {

inline std::string case_dir(const std::string& name) { return golden_dir() + "/cases/" + name; }

// Those of `names` that are here: some in this tree, all in the full sets, where one that is absent fails its test.
inline std::vector<std::string> cases_of(const std::vector<std::string>& names) {
  if (golden_dir() != committed_dir()) return names;
  std::vector<std::string> found;
  for (const std::string& name : names)
    if (std::filesystem::exists(case_dir(name))) found.push_back(name);
  return found;
}

// Arena and model together; positions covers every case.
struct LoadedModel {
  Arena memory;
  model::Model m;
  static size_t bytes(const model::ModelConfig& c, DType dt) {
    Arena a = Arena::measuring();
    model::Model(c, dt, 512, true, a);
    return a.peak();
  }
  LoadedModel(const model::ModelConfig& c, DType dt) : memory(bytes(c, dt)), m(c, dt, 512, true, memory) {}
};

inline std::unique_ptr<LoadedModel> load_case(const std::string& name, DType dt, const Exec& exec) {
  auto l = std::make_unique<LoadedModel>(model::config_from_json(checkpoint::read_config_json(case_dir(name))), dt);
  checkpoint::load_weights(case_dir(name), l->m);
  l->m.refresh(exec);
  return l;
}

// Rows sequences of seq_len tokens, each its own sequence.
struct Tokens {
  std::vector<int32_t> ids, position, first_key, start;
  Tokens(const std::vector<double>& flat, int64_t rows, int64_t seq_len) {
    for (int64_t r = 0; r < rows; ++r) {
      start.push_back(static_cast<int32_t>(r * seq_len));
      for (int64_t s = 0; s < seq_len; ++s) {
        ids.push_back(static_cast<int32_t>(flat[static_cast<size_t>(r * seq_len + s)]));
        position.push_back(static_cast<int32_t>(s));
        first_key.push_back(static_cast<int32_t>(r * seq_len));
      }
    }
  }
  layers::TokenContext context() const { return {position, first_key, start, start}; }
  int64_t size() const { return static_cast<int64_t>(ids.size()); }
};

}  // namespace birkhoff::test
