#include "checkpoint/hf_directory.h"

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "checkpoint/checkpoint.h"
#include "checkpoint/save_model.h"
#include "core/error.h"
#include "io/gguf.h"
#include "io/json_file.h"
#include "io/user_files.h"

namespace birkhoff::checkpoint {
namespace fs = std::filesystem;

bool read_as_f32(const io::TensorEntry& e, float* out) {
  ops::StoredTensor t;
  switch (e.type) {
    case io::TensorType::f64:
      t.type = ops::StoredType::f64;
      break;
    case io::TensorType::f32:
      t.type = ops::StoredType::f32;
      break;
    case io::TensorType::bf16:
      t.type = ops::StoredType::bf16;
      break;
    case io::TensorType::f16:
      t.type = ops::StoredType::f16;
      break;
    default:
      return false;
  }
  t.data = reinterpret_cast<const uint8_t*>(e.data);
  t.rows = 1, t.cols = e.size();
  ops::StoredMatrix m;
  m.append(t);
  ops::expand_rows(m, 0, 1, Mat(out, f32_t, 1, e.size()));
  return true;
}

// The GGUF file that stands in a folder where a model directory was expected.
static std::string gguf_hint(const std::string& directory) {
  for (const std::string& name : io::list_directory(directory))
    if (name.ends_with(".gguf")) return "it holds a GGUF file: give " + directory + "/" + name;
  return "give a run, a checkpoint or a model directory";
}

std::string resolve_model_directory(const std::string& path, std::string* note) {
  if (io::is_gguf(path))
    throw Error("checkpoint", path + ": is a GGUF file, a directory is needed here",
                "birkhoff convert writes a model directory from it");
  if (!io::is_directory(path))
    throw Error("checkpoint", path + ": " + (io::exists(path) ? "is not a directory" : "does not exist"),
                "give a run, a checkpoint, a model directory or a GGUF file");
  if (io::is_directory(path + "/checkpoints")) return newest_good_checkpoint(path, note);
  if (!io::exists(path + "/config.json")) throw Error("checkpoint", path + ": no config.json", gguf_hint(path));
  return path;
}

nlohmann::json read_config_json(const std::string& directory) {
  const std::string path = directory + "/config.json";
  nlohmann::json j = io::read_json(path);
  if (!j.is_object()) throw Error("config", path + ": not a JSON object", "give a model directory");
  return j;
}

void load_weights(const std::string& directory, model::Model& m) {
  const WeightFiles files(directory);
  const TensorMap map = match_tensors(files, m.config, m.parameters);
  for (size_t i = 0; i < m.parameters.size(); ++i) {
    const model::ParameterInfo& p = m.parameters[i];
    ops::expand_rows(map.views[i], 0, p.rows, Mat(m.block + p.offset, f32_t, p.rows, p.cols));
  }
}

void save_weights(const std::string& directory, const model::Model& m, const nlohmann::json& config, DType dtype,
                  const TensorMap* source) {
  SaveOptions options;
  options.type = dtype == f32_t ? SaveType::f32 : SaveType::bf16;
  options.source = source;
  const RowReader rows = [&](size_t i, int64_t first, int64_t count, Mat out) {
    const model::ParameterInfo& p = m.parameters[i];
    std::memcpy(out.f32(), m.block + p.offset + first * p.cols, static_cast<size_t>(count * p.cols) * sizeof(float));
  };
  save_model(directory, m.config, m.parameters, rows, config, options);
}

}  // namespace birkhoff::checkpoint
