#include "checkpoint/weight_files.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "io/json_file.h"

namespace birkhoff::checkpoint {

namespace fs = std::filesystem;

std::vector<std::string> index_files(const std::string& index_path) {
  const nlohmann::json j = io::read_json(index_path);
  if (!j.is_object() || !j.contains("weight_map") || !j["weight_map"].is_object() || j["weight_map"].empty())
    throw Error("checkpoint", index_path + ": no weight_map", "an object from tensor names to file names was expected");
  std::set<std::string> names;
  for (const auto& [tensor, file] : j["weight_map"].items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos || name.find('\0') != std::string::npos)
      throw Error("checkpoint", index_path + ": " + tensor + " is mapped to " + file.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace),
                  "a file name of the same directory was expected");
    names.insert(name);
  }
  return {names.begin(), names.end()};
}

WeightFiles::WeightFiles(const std::string& directory) : directory_(directory) {
  const std::string index = directory + "/model.safetensors.index.json";
  std::vector<std::string> names;
  if (fs::exists(index))
    names = index_files(index);
  else if (fs::exists(directory + "/model.safetensors"))
    names = {"model.safetensors"};
  else
    throw Error("checkpoint", directory + ": no model.safetensors", "is this a model directory? PyTorch .bin files are not read");
  for (const std::string& name : names) {
    files_.push_back(std::make_unique<io::SafetensorsFile>(directory + "/" + name));
    bytes_ += files_.back()->bytes();
    for (const io::TensorEntry& e : files_.back()->tensors())
      if (!tensors_.emplace(e.name, &e).second) duplicates_.push_back(e.name);
  }
}

const io::TensorEntry* WeightFiles::find(const std::string& name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : it->second;
}

}  // namespace birkhoff::checkpoint
