#include "checkpoint/checkpoint.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <vector>

#include "checkpoint/adapter.h"
#include "checkpoint/hf_directory.h"
#include "core/error.h"
#include "io/atomic_file.h"
#include "io/json_file.h"
#include "io/manifest.h"
#include "io/safetensors.h"
#include "io/user_files.h"

namespace birkhoff::checkpoint {
namespace {

namespace fs = std::filesystem;
constexpr const char* kStepPrefix = "step-";

// Steps of the published checkpoints of a run, newest first.
std::vector<int64_t> steps(const std::string& run) {
  std::vector<int64_t> out;
  if (!io::is_directory(run + "/checkpoints")) return out;
  for (const std::string& name : io::list_directory(run + "/checkpoints")) {
    if (name.rfind(kStepPrefix, 0) != 0) continue;
    const std::string digits = name.substr(std::strlen(kStepPrefix));
    if (!digits.empty() && digits.size() < 18 &&
        std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; }))
      out.push_back(std::stoll(digits));
  }
  std::sort(out.rbegin(), out.rend());
  return out;
}

std::string directory_of(const std::string& run, int64_t step) {
  return run + "/checkpoints/" + kStepPrefix + std::to_string(step);
}

io::TensorEntry vector_entry(const char* name, const float* data, int64_t n) {
  return {name, io::TensorType::f32, {n}, reinterpret_cast<const std::byte*>(data), static_cast<size_t>(n) * 4};
}

// "" when every fp32 value of a safetensors file is finite.
std::string not_finite(const std::string& path) {
  const io::SafetensorsFile file(path);
  for (const io::TensorEntry& e : file.tensors()) {
    if (e.type != io::TensorType::f32) continue;
    for (int64_t i = 0; i < e.size(); ++i) {
      float v;
      std::memcpy(&v, e.data + i * 4, 4);
      if (!std::isfinite(v)) return e.name + " is not finite";
    }
  }
  return "";
}

// What speaks against going on from a checkpoint; "" when nothing does.
std::string problem_of(const std::string& directory) {
  const std::vector<std::string> problems = io::verify_manifest(directory);
  if (!problems.empty()) return problems.front();
  try {
    for (const auto& e : fs::recursive_directory_iterator(directory)) {
      if (e.path().extension() != ".safetensors") continue;
      if (const std::string problem = not_finite(e.path().string()); !problem.empty()) return problem;
    }
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace

std::string save_checkpoint(const std::string& run, int64_t step, const model::Model& m, const nlohmann::json& config,
                            const TrainerState& state) {
  const std::string final_path = directory_of(run, step);
  io::StagedDirectory staged(final_path);
  io::create_directories(staged.path() + "/trainer_state");
  save_weights(staged.path(), m, config, DType::f32, state.source);
  if (!m.lora.empty()) {
    io::create_directories(staged.path() + "/adapter");
    save_adapter(staged.path() + "/adapter", m, state.base_model);
  }
  const io::TensorEntry moments[] = {vector_entry("moment1", state.moment1, state.elements),
                                     vector_entry("moment2", state.moment2, state.elements)};
  io::write_safetensors(staged.path() + "/trainer_state/optimizer.safetensors", moments);
  io::write_json(staged.path() + "/trainer_state/position.json", state.position);
  for (const std::string& file : state.files)
    io::copy_file(file, (fs::path(staged.path()) / fs::path(file).filename()).string());
  io::write_manifest(staged.path());
  staged.publish();
  io::replace_symlink(run + "/latest", std::string("checkpoints/") + kStepPrefix + std::to_string(step));
  if (!m.lora.empty()) io::replace_symlink(run + "/adapter", "latest/adapter");
  return final_path;
}

void prune_checkpoints(const std::string& run, int64_t keep, int64_t best) {
  const std::vector<int64_t> all = steps(run);
  for (size_t i = static_cast<size_t>(keep); i < all.size(); ++i) {
    std::error_code ec;
    if (all[i] != best) fs::remove_all(directory_of(run, all[i]), ec);
  }
  for (const std::string& where : {run, run + "/checkpoints"}) io::remove_leftovers(where);
}

bool has_checkpoints(const std::string& run) { return !steps(run).empty(); }

std::vector<std::string> checkpoint_directories(const std::string& run) {
  std::vector<std::string> directories;
  for (const int64_t step : steps(run)) directories.push_back(directory_of(run, step));
  return directories;
}

std::string newest_good_checkpoint(const std::string& run, std::string* note) {
  const std::vector<int64_t> all = steps(run);
  std::string said;
  for (const int64_t step : all) {
    const std::string problem = problem_of(directory_of(run, step));
    if (problem.empty()) {
      if (note && !said.empty()) *note = said + "using step " + std::to_string(step) + " instead";
      return directory_of(run, step);
    }
    said += "checkpoint step " + std::to_string(step) + " is damaged (" + problem + "); ";
  }
  if (all.empty()) throw Error("checkpoint", run + ": no finished checkpoint", "train longer, or set checkpoint_every");
  throw Error("checkpoint", run + ": no checkpoint verifies; " + said + "none is left");
}

void load_checkpoint(const std::string& directory, model::Model& m, TrainerState& state) {
  load_weights(directory, m);
  if (!m.lora.empty()) AdapterFiles(directory, m.config).load(m);
  const io::SafetensorsFile file(directory + "/trainer_state/optimizer.safetensors");
  for (const auto& [name, to] : {std::pair{"moment1", state.moment1}, std::pair{"moment2", state.moment2}}) {
    const io::TensorEntry* e = file.find(name);
    if (!e || e->type != io::TensorType::f32 || e->size() != state.elements)
      throw Error("checkpoint", file.path() + ": " + name + ": expected " + std::to_string(state.elements) +
                                    " values, file has " + std::to_string(e ? e->size() : 0));
    std::memcpy(to, e->data, e->bytes);
  }
  state.position = io::read_json(directory + "/trainer_state/position.json");
}

}  // namespace birkhoff::checkpoint
