#include "support/golden.h"

#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "core/bf16.h"
#include "support/temp_dir.h"

namespace birkhoff::test {

std::string committed_dir() { return BIRKHOFF_GOLDEN_DIR; }

std::string golden_dir() {
  const char* full = std::getenv("BIRKHOFF_ORACLE");
  return full && *full ? full : committed_dir();
}

bool has_golden(const std::string& relative) { return std::filesystem::exists(golden_dir() + "/" + relative); }

nlohmann::json python_json(const std::string& path) {
  const std::string text = read_file(path);
  std::string json;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const std::string_view rest = std::string_view(text).substr(i);
    const size_t escaped = quoted && text[i] == '\\' ? 1 : 0;
    size_t word = 0;
    for (const std::string_view name : {"-Infinity", "Infinity", "NaN"})
      if (!quoted && rest.substr(0, name.size()) == name) word = name.size();
    if (text[i] == '"') quoted = !quoted;
    json += word ? std::string_view("null") : rest.substr(0, 1 + escaped);
    i += word ? word - 1 : escaped;
  }
  return nlohmann::json::parse(json);
}

const io::SafetensorsFile& golden_file(const std::string& relative) {
  static std::map<std::string, std::unique_ptr<io::SafetensorsFile>> open;
  auto& f = open[relative];
  if (!f) f = std::make_unique<io::SafetensorsFile>(golden_dir() + "/" + relative);
  return *f;
}

namespace {
const io::TensorEntry& entry(const io::SafetensorsFile& f, const std::string& name) {
  const io::TensorEntry* e = f.find(name);
  if (!e) throw std::runtime_error(f.path() + " has no tensor " + name);
  return *e;
}
}  // namespace

std::vector<int64_t> golden_shape(const io::SafetensorsFile& f, const std::string& name) {
  return entry(f, name).shape;
}

std::vector<double> golden(const io::SafetensorsFile& f, const std::string& name) {
  const io::TensorEntry& e = entry(f, name);
  std::vector<double> out(static_cast<size_t>(e.size()));
  for (size_t i = 0; i < out.size(); ++i) {
    switch (e.type) {
      case io::TensorType::f64:
        out[i] = e.as<double>()[i];
        break;
      case io::TensorType::f32:
        out[i] = e.as<float>()[i];
        break;
      case io::TensorType::bf16:
        out[i] = to_float(e.as<bf16>()[i]);
        break;
      case io::TensorType::i64:
        out[i] = static_cast<double>(e.as<int64_t>()[i]);
        break;
      case io::TensorType::i32:
        out[i] = e.as<int32_t>()[i];
        break;
      default:
        throw std::runtime_error(name + ": type not used in reference data");
    }
  }
  return out;
}

}  // namespace birkhoff::test
