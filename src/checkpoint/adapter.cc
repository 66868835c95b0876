#include "checkpoint/adapter.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "checkpoint/hf_directory.h"
#include "core/error.h"
#include "core/nearest.h"
#include "io/json_file.h"
#include "io/user_files.h"
#include "model/config/model_type.h"

namespace birkhoff::checkpoint {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kConfig = "/adapter_config.json";
constexpr const char* kMain = "/adapter_model.safetensors";
constexpr const char* kExperts = "/expert_adapters.safetensors";
constexpr const char* kPeftPrefix = "base_model.model.";

[[noreturn]] void fail(const std::string& what, const std::string& hint = "") { throw Error("adapter", what, hint); }

bool ends_with(const std::string& s, const std::string& end) {
  return s.size() >= end.size() && s.compare(s.size() - end.size(), end.size(), end) == 0;
}

// target_parameters that mean weights of linear layers (see peft_targets), not the fused experts of transformers.
bool names_weights(const json& v) {
  return v.is_array() && std::all_of(v.begin(), v.end(), [](const json& n) {
           return n.is_string() && ends_with(n.get<std::string>(), ".weight");
         });
}

// Settings that would change what is computed. Null, false, zero and empty values change nothing.
void require_plain_lora(const std::string& file, const json& j) {
  if (!j.is_object()) fail(file + ": not a JSON object");
  const std::string type = j.contains("peft_type") && j["peft_type"].is_string() ? j["peft_type"].get<std::string>()
                                                                                 : j.value("peft_type", json()).dump();
  if (type != "LORA") fail(file + ": peft_type is " + type + ", only LORA is supported");
  for (const char* key : {"use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern", "modules_to_save",
                          "layer_replication", "lora_bias", "target_parameters", "trainable_token_indices",
                          "megatron_config", "alora_invocation_tokens", "use_qalora", "arrow_config"}) {
    if (!j.contains(key)) continue;
    const json& v = j[key];
    const bool nothing = v.is_null() || v == json(false) || (v.is_structured() && v.empty());
    if (!nothing && !(key == std::string("target_parameters") && names_weights(v)))
      fail(file + ": " + key + " " + v.dump() + " is not supported",
           "merge the adapter with PEFT, or train without it");
  }
  if (j.contains("bias") && j["bias"] != "none")
    fail(file + ": bias " + j["bias"].dump() + " is not supported, only \"none\"");
}

model::LoraSpec read_spec(const std::string& file) {
  const json j = io::read_json(file);
  require_plain_lora(file, j);
  model::LoraSpec s;
  if (!j.contains("r") || !j["r"].is_number_integer() || j["r"].get<int64_t>() < 1 ||
      j["r"].get<int64_t>() > model::kMaxLoraRank)
    fail(file + ": r: a rank of 1 to " + std::to_string(model::kMaxLoraRank) + " was expected, the file has " +
         j.value("r", json()).dump());
  s.rank = j["r"];
  s.alpha = 8;  // PEFT's default
  if (j.contains("lora_alpha")) {
    if (!j["lora_alpha"].is_number() || !std::isfinite(j["lora_alpha"].get<double>()))
      fail(file + ": lora_alpha: a number was expected, the file has " + j["lora_alpha"].dump());
    s.alpha = j["lora_alpha"];
  }
  if (j.contains("use_rslora") && j["use_rslora"] == true)
    s.alpha *= std::sqrt(static_cast<double>(s.rank));  // alpha / sqrt(r)
  return s;
}

// "a.b.lora_A[.default].weight" -> "a.b" and "lora_A"; "" when the name has another form.
std::string split_name(std::string name, std::string& which) {
  if (name.rfind(kPeftPrefix, 0) == 0) name = name.substr(std::char_traits<char>::length(kPeftPrefix));
  for (const char* matrix : {"lora_A", "lora_B"}) {
    which = matrix;
    for (const std::string& end : {"." + which + ".weight", "." + which + ".default.weight"})
      if (ends_with(name, end)) return name.substr(0, name.size() - end.size());
  }
  return "";
}

// Names of modules in files of this model -> ours.
std::map<std::string, std::string> module_names(const model::ModelConfig& c) {
  constexpr size_t kSuffix = std::char_traits<char>::length(".weight");
  std::map<std::string, std::string> names;
  for (const std::string& m : model::lora_candidates(c)) {
    names[m] = m;
    for (const std::string& f : model::find_model_type(c.model_type).file_names(c, m + ".weight"))
      if (ends_with(f, ".weight")) names.emplace(f.substr(0, f.size() - kSuffix), m);
  }
  return names;
}

std::vector<std::string> keys(const std::map<std::string, std::string>& m) {
  std::vector<std::string> out;
  for (const auto& [k, v] : m) out.push_back(k);
  return out;
}

// What PEFT is told to adapt.
struct PeftTargets {
  std::vector<std::string> modules, parameters;
};

// The shortest ends of names that PEFT, which takes every module whose name ends so, reads as exactly these modules
// without the routed experts. In a model with experts PEFT takes target_modules called gate_proj, up_proj or down_proj,
// whatever stands before, for the experts that transformers has fused into one parameter (_convert_peft_config_moe).
// The parameter of a dense or shared network has another name.
PeftTargets peft_targets(const model::ModelConfig& c, const std::vector<std::string>& modules) {
  const std::vector<std::string> all = model::lora_candidates(c);
  std::set<std::string> wanted;
  std::copy_if(modules.begin(), modules.end(), std::inserter(wanted, wanted.end()),
               [](const std::string& m) { return !model::is_routed_expert(m); });
  const auto exact = [&](const std::string& end) {
    return std::all_of(all.begin(), all.end(), [&](const std::string& m) {
      return m != end && !ends_with(m, "." + end) ? true : wanted.count(m) > 0;
    });
  };
  std::set<std::string> ends;
  for (const std::string& m : wanted) {
    size_t dot = m.rfind('.');
    while (dot != std::string::npos && !exact(m.substr(dot + 1))) dot = dot ? m.rfind('.', dot - 1) : std::string::npos;
    ends.insert(dot == std::string::npos ? m : m.substr(dot + 1));
  }
  PeftTargets targets;
  for (const std::string& end : ends) {
    const std::string last = end.substr(end.rfind('.') + 1);
    if (c.n_routed_experts > 0 && (last == "gate_proj" || last == "up_proj" || last == "down_proj"))
      targets.parameters.push_back(end + ".weight");
    else
      targets.modules.push_back(end);
  }
  return targets;
}

}  // namespace

bool has_adapter(const std::string& directory) { return io::exists(directory + "/adapter" + kConfig); }

std::string resolve_adapter_directory(const std::string& path) {
  if (io::exists(path + kConfig)) return path;
  if (has_adapter(path)) return path + "/adapter";
  if (!io::exists(path)) fail(path + ": does not exist", "give a PEFT adapter, a run or a checkpoint");
  fail(path + ": no adapter_config.json",
       "give a PEFT adapter, or a run or checkpoint that was trained with lora.rank");
}

AdapterFiles::AdapterFiles(const std::string& path, const model::ModelConfig& config)
    : directory_(resolve_adapter_directory(path)), spec_(read_spec(directory_ + kConfig)) {
  std::vector<std::string> paths;
  for (const char* f : {kMain, kExperts})
    if (io::exists(directory_ + f)) paths.push_back(directory_ + f);
  if (paths.empty())
    fail(directory_ + ": no adapter_model.safetensors",
         "PyTorch .bin files are not read; save the adapter with safe_serialization");
  const std::map<std::string, std::string> names = module_names(config);
  std::set<std::string> modules;
  std::string problems;
  for (const std::string& p : paths) {
    files_.push_back(std::make_unique<io::SafetensorsFile>(p));
    for (const io::TensorEntry& e : files_.back()->tensors()) {
      std::string which;
      const std::string module = split_name(e.name, which);
      const auto known = names.find(module);
      if (known == names.end()) {
        const std::string near = nearest(module, keys(names));
        problems +=
            "\n  unknown   " + e.name + " " + shape_text(e.shape) + (near.empty() ? "" : "; the model has " + near);
      } else if (!tensors_.emplace(known->second + "." + which + ".weight", &e).second) {
        problems += "\n  duplicate " + e.name;
      } else {
        modules.insert(known->second);
      }
    }
  }
  for (const std::string& m : model::lora_candidates(config))
    if (modules.count(m)) spec_.modules.push_back(m);
  check_shapes(config, problems);
  if (spec_.modules.empty()) fail(directory_ + ": holds no adapter matrices");
}

void AdapterFiles::check_shapes(const model::ModelConfig& config, std::string problems) const {
  model::Weights shapes(config);
  model::add_adapters(config, spec_, shapes);
  for (const model::ParameterInfo& p : model::list_adapters(config, spec_, shapes)) {
    const auto it = tensors_.find(p.name);
    const std::vector<int64_t> want{p.rows, p.cols};
    if (it == tensors_.end()) {
      problems += "\n  missing   " + p.name + ", expected " + shape_text(want);
      continue;
    }
    const io::TensorEntry& e = *it->second;
    if (e.shape != want)
      problems += "\n  shape     " + p.name + ": expected " + shape_text(want) + ", file has " + shape_text(e.shape);
    else if (e.type != io::TensorType::f32 && e.type != io::TensorType::bf16 && e.type != io::TensorType::f16)
      problems += "\n  type      " + p.name + ": F32, BF16 or F16 expected, file has " + io::tensor_type_name(e.type);
  }
  if (!problems.empty())
    fail(directory_ + ": tensors do not match the model:" + problems, "is the adapter one of this model?");
}

namespace {

// Rows of a rotary projection's B, as those of the weights that they are added to stand.
void order_rotary_rows(const model::ModelConfig& c, Mat b) {
  if (!c.interleaved_rows) return;
  const std::vector<float> rows(b.f32(), b.f32() + b.size());
  for (int64_t r = 0; r < b.rows; ++r) std::copy_n(rows.data() + r * b.cols, b.cols, b.f32(c.rotary_row(r)));
}

}  // namespace

void AdapterFiles::load(model::Model& m) const {
  for (const model::ParameterInfo& p : m.adapters) {
    const auto it = tensors_.find(p.name);
    if (it == tensors_.end() || it->second->shape != std::vector<int64_t>{p.rows, p.cols})
      fail(directory_ + ": " + p.name + ": expected " + shape_text({p.rows, p.cols}) + ", the file has " +
           (it == tensors_.end() ? "none" : shape_text(it->second->shape)));
    read_as_f32(*it->second, m.adapter_block + p.offset);
    if (p.name.ends_with("self_attn.q_proj.lora_B.weight") || p.name.ends_with("self_attn.k_proj.lora_B.weight"))
      order_rotary_rows(m.config, Mat(m.adapter_block + p.offset, f32_t, p.rows, p.cols));
  }
}

bool AdapterFiles::add_to(const std::string& name, int64_t first, Mat rows) const {
  const std::string module = name.substr(0, name.rfind('.'));
  const auto a = tensors_.find(module + ".lora_A.weight"), b = tensors_.find(module + ".lora_B.weight");
  if (a == tensors_.end() || b == tensors_.end()) return false;
  const int64_t rank = spec_.rank, in = a->second->shape[1];
  BK_CHECK_EQ(rows.cols, in);
  BK_CHECK_LE(first + rows.rows, b->second->shape[0]);
  std::vector<float> a_values(static_cast<size_t>(rank * in)), b_values(static_cast<size_t>(b->second->size()));
  read_as_f32(*a->second, a_values.data());
  read_as_f32(*b->second, b_values.data());
  const double scale = spec_.alpha / static_cast<double>(rank);
  std::vector<double> sum(static_cast<size_t>(in));
  for (int64_t r = 0; r < rows.rows; ++r) {
    std::fill(sum.begin(), sum.end(), 0.0);
    for (int64_t j = 0; j < rank; ++j) {
      const double factor = scale * b_values[static_cast<size_t>((first + r) * rank + j)];
      for (int64_t k = 0; k < in; ++k)
        sum[static_cast<size_t>(k)] += factor * a_values[static_cast<size_t>(j * in + k)];
    }
    for (int64_t k = 0; k < in; ++k) rows.f32(r)[k] = static_cast<float>(rows.f32(r)[k] + sum[static_cast<size_t>(k)]);
  }
  return true;
}

void save_adapter(const std::string& directory, const model::Model& m, const std::string& base_model) {
  std::vector<io::TensorEntry> main, experts;
  for (const model::ParameterInfo& p : m.adapters)
    (model::is_routed_expert(p.name) ? experts : main)
        .push_back({kPeftPrefix + p.name,
                    io::TensorType::f32,
                    {p.rows, p.cols},
                    reinterpret_cast<const std::byte*>(m.adapter_block + p.offset),
                    static_cast<size_t>(p.size()) * 4});
  io::write_safetensors(directory + kMain, main, {{"format", "pt"}});
  if (!experts.empty()) io::write_safetensors(directory + kExperts, experts, {{"format", "birkhoff"}});
  const double alpha = m.lora.alpha;
  const PeftTargets targets = peft_targets(m.config, m.lora.modules);
  io::write_json(directory + kConfig,
                 {{"peft_type", "LORA"},
                  {"task_type", "CAUSAL_LM"},
                  {"base_model_name_or_path", base_model},
                  {"r", m.lora.rank},
                  {"lora_alpha", alpha == std::floor(alpha) && std::abs(alpha) < 1e9 ? json(static_cast<int64_t>(alpha))
                                                                                     : json(alpha)},
                  {"target_modules", targets.modules},
                  {"target_parameters", targets.parameters.empty() ? json() : json(targets.parameters)},
                  {"lora_dropout", 0.0},
                  {"bias", "none"},
                  {"fan_in_fan_out", false},
                  {"use_rslora", false},
                  {"use_dora", false},
                  {"init_lora_weights", true},
                  {"inference_mode", true},
                  {"modules_to_save", nullptr}});
}

}  // namespace birkhoff::checkpoint
