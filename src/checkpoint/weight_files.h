// The safetensors of a model directory, mapped: model.safetensors, or shards with model.safetensors.index.json.
#pragma once
#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "io/safetensors.h"

namespace birkhoff::checkpoint {

class WeightFiles {
 public:
  // Throws Error: no weights, a damaged index, a missing or damaged shard.
  explicit WeightFiles(const std::string& directory);

  const io::TensorEntry* find(const std::string& name) const;  // nullptr when absent
  const std::map<std::string, const io::TensorEntry*>& tensors() const { return tensors_; }
  const std::vector<std::string>& duplicates() const { return duplicates_; }  // names that stand in two shards
  size_t bytes() const { return bytes_; }                                     // of all files
  const std::vector<std::string>& paths() const { return paths_; }
  const std::string& directory() const { return directory_; }

 private:
  std::string directory_;
  std::vector<std::string> paths_;
  std::vector<std::unique_ptr<io::SafetensorsFile>> files_;
  std::map<std::string, const io::TensorEntry*> tensors_;
  std::vector<std::string> duplicates_;
  size_t bytes_ = 0;
};

// Names of the shards that an index lists. Throws Error: not an index, a path that leaves the directory.
std::vector<std::string> index_files(const std::string& index_path);

}  // namespace birkhoff::checkpoint
