// What -m names, opened: a Hugging Face directory (also a run's or a checkpoint) or a GGUF file.
#pragma once
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/gguf_files.h"
#include "checkpoint/weight_files.h"

namespace birkhoff::checkpoint {

// The model that `path` means: a GGUF file is itself, everything else as resolve_model_directory says. What is returned
// is what text::Tokenizer and text::chat::ChatFormat open.
std::string resolve_model(const std::string& path, std::string* note = nullptr);

// The config.json of a directory, or what the metadata of a GGUF file say in its place.
nlohmann::json read_model_config(const std::string& path);

class ModelFiles {
 public:
  // path: of resolve_model. Throws Error.
  explicit ModelFiles(const std::string& path);
  const std::string& path() const { return path_; }
  bool is_directory() const { return weights_ != nullptr; }
  const nlohmann::json& config() const { return config_; }
  size_t bytes() const;                                     // of all files
  std::vector<std::string> paths() const;                   // of the files that hold tensors
  std::vector<std::span<const std::byte>> regions() const;  // the data of all tensors
  // Says in the configuration what it does not say by itself: prediction modules whose tensors are not there, the order
  // of rotary rows. Returns sentences for who opens the model.
  std::vector<std::string> complete(model::ModelConfig& c) const;
  // The tensors of every parameter. Throws one Error that lists all that does not match.
  TensorMap match(const model::ModelConfig& c, const std::vector<model::ParameterInfo>& parameters) const;
  // out [count, cols] fp32 = rows [first, first + count) of parameter p, which is number i of `map`, in the order that
  // directories have: rows of a GGUF file that rotate as neighbours are put half a head apart.
  static void read_rows(const TensorMap& map, const model::ModelConfig& c, const model::ParameterInfo& p, size_t i,
                        int64_t first, int64_t count, Mat out);

 private:
  std::string path_;
  std::unique_ptr<WeightFiles> weights_;
  std::unique_ptr<GgufFiles> gguf_;
  nlohmann::json config_;
};

}  // namespace birkhoff::checkpoint
