// A model in GGUF: its tensors as parameters of a model.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "checkpoint/gguf_config.h"
#include "checkpoint/tensor_map.h"
#include "model/config/config.h"

namespace birkhoff::checkpoint {

class GgufFiles {
 public:
  // Throws Error: a damaged or missing file, an architecture that is not known, metadata that describe no model.
  explicit GgufFiles(const std::string& path);
  const io::GgufModel& model() const { return model_; }
  const nlohmann::json& config() const { return config_; }  // as config.json would have it
  const std::vector<std::string>& notes() const { return description_.notes; }
  // What the configuration owes to the container: the order of rotary rows.
  void complete(model::ModelConfig& c) const { c.interleaved_rows = description_.interleaved; }
  // A prediction module of which tensors are missing is left out: the count becomes 0, and the sentence that says so is
  // returned; "" when nothing was to do.
  std::string drop_incomplete_predictors(model::ModelConfig& c) const;
  // As match_tensors: a view of every parameter, experts and fused tensors in the rows that belong to them; of a
  // kv_b_proj that stands as k_b (transposed) and v_b, parts head by head. Throws one Error that lists everything that
  // does not match.
  TensorMap match(const model::ModelConfig& c, const std::vector<model::ParameterInfo>& parameters) const;

 private:
  io::GgufModel model_;
  GgufDescription description_;
  nlohmann::json config_;
};

}  // namespace birkhoff::checkpoint
