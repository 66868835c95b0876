// Writing a model directory: config.json and safetensors, tensor by tensor, in shards when large.
#pragma once
#include <cstddef>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/tensor_map.h"
#include "core/names.h"
#include "model/config/config.h"
#include "model/weights.h"

namespace birkhoff::checkpoint {

// fp8: matrices of linear layers as F8_E4M3 with `weight_scale_inv`, everything else bf16 (models.md E.5); DeepSeek-V3
// and V3.2 only. Router biases and hyper-connection parameters are fp32 in all of them.
enum class SaveType { f32, bf16, fp8 };
// Throws Error naming the known ones.
SaveType parse_save_type(const std::string& name);

// Names of tensors where a type has two schemes: as released, or as transformers writes them.
enum class NameScheme { as_source, hub, hf };

struct SaveOptions {
  std::optional<SaveType>
      type;  // nothing: each tensor as in the source (FP4 that changed: bf16); fp32 where there is none
  NameScheme names = NameScheme::as_source;  // without a source: hub
  size_t shard_bytes = 5'000'000'000;
  const TensorMap* source = nullptr;  // the files the model came from
  // A parameter whose values are still those of the source is written with the source's bytes, whatever `type` says.
  // Otherwise only when the source has that type.
  bool keep_unchanged = true;
};

// Rows [first, first + count) of a parameter, in fp32. Empty: the rows of the source.
using RowReader = std::function<void(size_t parameter, int64_t first, int64_t count, Mat out)>;

// Writes into an existing directory. `config` gets torch_dtype and quantization_config of what was written. Tensors of
// the source that are no parameter (buffers) are copied; copies of parameters that files of the type carry follow them.
// Throws Error.
void save_model(const std::string& directory, const model::ModelConfig& config,
                const std::vector<model::ParameterInfo>& parameters, const RowReader& rows, nlohmann::json config_json,
                const SaveOptions& options);

}  // namespace birkhoff::checkpoint

template <>
struct birkhoff::NamesOf<birkhoff::checkpoint::SaveType> {
  static constexpr Named<checkpoint::SaveType> table[] = {
      {"bf16", checkpoint::SaveType::bf16}, {"fp32", checkpoint::SaveType::f32}, {"fp8", checkpoint::SaveType::fp8}};
};
