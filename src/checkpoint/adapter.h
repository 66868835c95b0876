// LoRA adapters on disk in PEFT's layout: a directory with adapter_config.json and adapter_model.safetensors, whose
// names are base_model.model.MODULE.lora_A.weight [r, in] and .lora_B.weight [out, r]. Adapters of routed experts have
// no form there, since transformers keeps a layer's experts in one parameter; they are ours only, under the same names
// in a second file, expert_adapters.safetensors.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "model/lora.h"
#include "model/model.h"

namespace birkhoff::checkpoint {

// The adapter directory that `path` means: itself, or adapter/ of a run or checkpoint. Throws Error when there is none.
std::string resolve_adapter_directory(const std::string& path);
bool has_adapter(const std::string& checkpoint_directory);

// An opened adapter, checked against the model it is for.
class AdapterFiles {
 public:
  // Throws Error: settings of PEFT that change the formula and are not supported here, modules the model does not have
  // (with the nearest), a matrix without its partner, wrong shapes (with both), other types than F32, BF16 and F16. One
  // report lists all tensors that do not match.
  AdapterFiles(const std::string& path, const model::ModelConfig& config);
  const std::string& directory() const { return directory_; }
  const model::LoraSpec& spec() const { return spec_; }
  // Fills the adapters of m, which were attached with spec() or one of the same modules and rank, and refreshes
  // nothing.
  void load(model::Model& m) const;
  // Merges: rows [n, cols] fp32, which are rows first .. first + n of the model's tensor `name`, += scale B A (summed
  // in double). False, and nothing happens, when that tensor has no adapter.
  bool add_to(const std::string& name, int64_t first, Mat rows) const;

 private:
  void check_shapes(const model::ModelConfig& config, std::string problems) const;
  std::string directory_;
  model::LoraSpec spec_;
  std::vector<std::unique_ptr<io::SafetensorsFile>> files_;
  std::map<std::string, const io::TensorEntry*> tensors_;  // by our name, MODULE.lora_A.weight
};

// Writes the adapters of m into an existing directory, fp32. base_model: name or path of the model they are for.
void save_adapter(const std::string& directory, const model::Model& m, const std::string& base_model);

}  // namespace birkhoff::checkpoint
