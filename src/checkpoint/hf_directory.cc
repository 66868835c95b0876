#include "checkpoint/hf_directory.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "checkpoint/checkpoint.h"
#include "core/error.h"
#include "io/json_file.h"
#include "model/model_type.h"

namespace birkhoff::checkpoint {
namespace {

namespace fs = std::filesystem;
using io::TensorEntry;
using io::TensorType;
using layers::Role;

bool is_vector(Role r) { return r == Role::norm || r == Role::bias || r == Role::router_bias || r == Role::hc_scale || r == Role::hc_base; }

std::vector<int64_t> file_shape(const Mat& m, Role role) {
  return is_vector(role) ? std::vector<int64_t>{m.cols} : std::vector<int64_t>{m.rows, m.cols};
}

std::string shape_text(const std::vector<int64_t>& s) {
  std::string t = "[";
  for (size_t i = 0; i < s.size(); ++i) t += (i ? "," : "") + std::to_string(s[i]);
  return t + "]";
}

std::vector<std::string> weight_files(const std::string& dir) {
  const std::string index = dir + "/model.safetensors.index.json";
  std::set<std::string> names;
  if (fs::exists(index)) {
    const nlohmann::json j = io::read_json(index);
    if (!j.contains("weight_map") || !j["weight_map"].is_object()) throw Error("checkpoint", index + ": no weight_map");
    for (const auto& [tensor, file] : j["weight_map"].items()) {
      if (!file.is_string() || fs::path(file.get<std::string>()).has_parent_path())
        throw Error("checkpoint", index + ": " + tensor + " is mapped to " + file.dump(), "a file name of the same directory was expected");
      names.insert(file.get<std::string>());
    }
  } else if (fs::exists(dir + "/model.safetensors")) {
    names.insert("model.safetensors");
  }
  if (names.empty()) throw Error("checkpoint", dir + ": no model.safetensors", "is this a model directory? PyTorch .bin files are not read");
  std::vector<std::string> files;
  for (const auto& n : names) files.push_back(dir + "/" + n);
  return files;
}

float half_to_float(uint16_t h) {
  const uint32_t sign = uint32_t{h & 0x8000u} << 16, exponent = (h >> 10) & 31, mantissa = h & 1023;
  if (exponent == 0) {
    const float f = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -f : f;
  }
  const uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | (mantissa << 13);
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

// Tensors of a file may start anywhere, so elements are copied out.
template <class T>
T element(const TensorEntry& e, size_t i) {
  T v;
  std::memcpy(&v, e.data + i * sizeof(T), sizeof(T));
  return v;
}

bool convert(const TensorEntry& e, float* out) {
  const auto n = static_cast<size_t>(e.size());
  switch (e.type) {
    case TensorType::f32: std::memcpy(out, e.data, n * 4); return true;
    case TensorType::bf16:
      for (size_t i = 0; i < n; ++i) out[i] = to_float(element<bf16>(e, i));
      return true;
    case TensorType::f16:
      for (size_t i = 0; i < n; ++i) out[i] = half_to_float(element<uint16_t>(e, i));
      return true;
    default: return false;
  }
}

// Experts by token id. False for other types, and for experts that do not exist.
template <class T>
bool copy_experts(const TensorEntry& e, int64_t experts, float* out) {
  for (size_t i = 0; i < static_cast<size_t>(e.size()); ++i) {
    const T expert = element<T>(e, i);
    if (expert < 0 || expert >= experts) return false;
    out[i] = static_cast<float>(expert);
  }
  return true;
}
bool convert_experts(const TensorEntry& e, int64_t experts, float* out) {
  if (e.type == TensorType::i64) return copy_experts<int64_t>(e, experts, out);
  return e.type == TensorType::i32 && copy_experts<int32_t>(e, experts, out);
}

}  // namespace

std::string resolve_model_directory(const std::string& path, std::string* note) {
  if (!fs::is_directory(path)) throw Error("checkpoint", path + ": " + (fs::exists(path) ? "is not a directory" : "does not exist"), "give a run, a checkpoint or a model directory");
  if (fs::is_directory(path + "/checkpoints")) return newest_good_checkpoint(path, note);
  if (!fs::exists(path + "/config.json")) throw Error("checkpoint", path + ": no config.json", "give a run, a checkpoint or a model directory");
  return path;
}

nlohmann::json read_config_json(const std::string& directory) { return io::read_json(directory + "/config.json"); }

void load_weights(const std::string& directory, model::Model& m) {
  std::vector<std::unique_ptr<io::SafetensorsFile>> files;
  std::map<std::string, const TensorEntry*> have;
  std::string problems;
  const auto complain = [&](const std::string& text) { problems += "\n  " + text; };
  for (const auto& f : weight_files(directory)) {
    files.push_back(std::make_unique<io::SafetensorsFile>(f));
    for (const TensorEntry& e : files.back()->tensors())
      if (!have.emplace(e.name, &e).second) complain("duplicate " + e.name);
  }
  const model::ModelType& type = model::find_model_type(m.config.model_type);
  m.weights.for_each([&](const std::string& name, Mat& t, Role role) {
    const std::vector<std::string> names = type.file_names(m.config, name);
    const auto known = std::find_if(names.begin(), names.end(), [&](const std::string& n) { return have.count(n) > 0; });
    if (known == names.end()) {
      complain("missing   " + names.front() + ", expected " + shape_text(file_shape(t, role)));
      return;
    }
    const auto it = have.find(*known);
    const TensorEntry& e = *it->second;
    if (e.shape != file_shape(t, role))
      complain("shape     " + name + ": expected " + shape_text(file_shape(t, role)) + ", file has " + shape_text(e.shape));
    else if (role == Role::expert_table && !convert_experts(e, m.config.n_routed_experts, t.f32()))
      complain("type      " + name + ": I64 or I32 below n_routed_experts " + std::to_string(m.config.n_routed_experts) + " expected, file has " + io::tensor_type_name(e.type));
    else if (role != Role::expert_table && !convert(e, t.f32()))
      complain("type      " + name + ": F32, BF16 or F16 expected, file has " + io::tensor_type_name(e.type));
    have.erase(it);
  });
  for (const auto& [name, e] : have)
    if (!type.ignores(m.config, name)) complain("unknown   " + name + " " + shape_text(e->shape));
  if (!problems.empty())
    throw Error("checkpoint", directory + ": tensors do not match the configuration:" + problems, "is config.json the one of these weights?");
}

void save_weights(const std::string& directory, const model::Model& m, const nlohmann::json& config, DType dtype) {
  io::write_json(directory + "/config.json", config);
  std::vector<TensorEntry> entries;
  std::vector<std::vector<bf16>> converted;
  std::vector<std::vector<int64_t>> tables;
  const model::ModelType& type = model::find_model_type(m.config.model_type);
  model::Weights weights = m.weights;  // views; for_each wants them writable
  weights.for_each([&](const std::string& name, Mat& t, Role role) {
    TensorEntry e{type.file_names(m.config, name).front(), TensorType::f32, file_shape(t, role), reinterpret_cast<const std::byte*>(t.f32()), static_cast<size_t>(t.size()) * 4};
    if (role == Role::expert_table) {
      tables.emplace_back(t.f32(), t.f32() + t.size());
      e.type = TensorType::i64;
      e.data = reinterpret_cast<const std::byte*>(tables.back().data());
      e.bytes *= 2;
    }
    const bool keep_fp32 = dtype == DType::f32 || role == Role::expert_table || role == Role::bias || role == Role::position_bias || role == Role::router_bias || role == Role::hc_fn || role == Role::hc_scale || role == Role::hc_base;
    if (!keep_fp32) {
      converted.emplace_back(static_cast<size_t>(t.size()));
      for (int64_t i = 0; i < t.size(); ++i) converted.back()[static_cast<size_t>(i)] = to_bf16(t.f32()[i]);
      e.type = TensorType::bf16;
      e.data = reinterpret_cast<const std::byte*>(converted.back().data());
      e.bytes /= 2;
    }
    entries.push_back(std::move(e));
  });
  io::write_safetensors(directory + "/model.safetensors", entries, {{"format", "pt"}});
}

}  // namespace birkhoff::checkpoint
