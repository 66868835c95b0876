#include "checkpoint/save_model.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>

#include "checkpoint/fp8_blocks.h"
#include "core/error.h"
#include "io/json_file.h"
#include "model/config/model_type.h"

namespace birkhoff::checkpoint {
namespace {

using io::TensorEntry;
using io::TensorType;
using layers::Role;

constexpr int64_t kChunkElements = 1 << 22;  // of a parameter held in fp32 at a time

// One tensor to be written. source: its bytes. Otherwise parameter `index`, encoded as entry.type; `scales`: the
// factors of the fp8 tensor before.
struct Planned {
  TensorEntry entry;
  const TensorEntry* source = nullptr;
  size_t index = 0;
  bool scales = false;
};

bool keeps_fp32(Role r) {
  return r == Role::bias || r == Role::position_bias || r == Role::router_bias || r == Role::hc_fn ||
         r == Role::hc_scale || r == Role::hc_base;
}

bool ends_with(const std::string& s, const char* end) {
  const size_t n = std::strlen(end);
  return s.size() >= n && s.compare(s.size() - n, n, end) == 0;
}

bool quantised(const model::ParameterInfo& p) {
  const bool linear = p.role == Role::matrix || p.role == Role::output_projection;
  return linear && !ends_with(p.name, "weights_proj.weight") && !ends_with(p.name, "eh_proj.weight");
}

class Plan {
 public:
  Plan(const model::ModelConfig& config, const std::vector<model::ParameterInfo>& parameters, const RowReader& rows,
       const SaveOptions& o)
      : config_(config),
        type_(model::find_model_type(config.model_type)),
        parameters_(parameters),
        rows_(rows),
        options_(o) {
    if (o.type == SaveType::fp8 && !type_.fp8_files)
      throw Error("save",
                  "dtype fp8 is what deepseek_v3 and deepseek_v32 files use, this model is " + config.model_type,
                  "choose bf16 or fp32", ExitCode::usage);
    std::map<std::string, std::vector<std::string>> copies;
    for (const auto& [file_name, ours] : type_.copies(config_)) copies[ours].push_back(file_name);
    for (size_t i = 0; i < parameters.size(); ++i) {
      add(i, name_of(i));
      for (const std::string& name : copies[parameters[i].name]) {
        if (!o.source || is_ignored(name)) add(i, name);
        copy_names_.push_back(name);
      }
    }
    if (!o.source) return;
    for (const TensorEntry* e : o.source->ignored) {
      if (std::find(copy_names_.begin(), copy_names_.end(), e->name) == copy_names_.end()) list.push_back({*e, e});
    }
  }

  void read(size_t i, int64_t first, int64_t count, Mat out) const {
    rows_ ? rows_(i, first, count, out) : read_source(i, first, count, out);
  }

  std::vector<Planned> list;

 private:
  std::string name_of(size_t i) const {
    const std::vector<std::string> names = type_.file_names(config_, parameters_[i].name);
    if (options_.names == NameScheme::as_source)
      return options_.source ? options_.source->weights[i]->name : names.front();
    return options_.names == NameScheme::hf ? names.back() : names.front();
  }

  bool is_ignored(const std::string& name) const {
    return std::any_of(options_.source->ignored.begin(), options_.source->ignored.end(),
                       [&](const TensorEntry* e) { return e->name == name; });
  }

  void read_source(size_t i, int64_t first, int64_t count, Mat out) const {
    ops::expand_rows(options_.source->views[i], first, count, out);
  }

  // Whether the parameter still has the bits that its file expands to.
  bool unchanged(size_t i) const {
    if (!rows_) return true;
    const model::ParameterInfo& p = parameters_[i];
    const int64_t step = std::max<int64_t>(1, kChunkElements / std::max<int64_t>(1, p.cols));
    std::vector<float> ours, theirs;
    for (int64_t r = 0; r < p.rows; r += step) {
      const int64_t n = std::min(step, p.rows - r);
      ours.resize(static_cast<size_t>(n * p.cols));
      theirs.resize(ours.size());
      rows_(i, r, n, Mat(ours.data(), f32_t, n, p.cols));
      read_source(i, r, n, Mat(theirs.data(), f32_t, n, p.cols));
      if (std::memcmp(ours.data(), theirs.data(), ours.size() * sizeof(float)) != 0) return false;
    }
    return true;
  }

  // Of a tensor that is encoded anew.
  TensorType target_type(size_t i) const {
    const model::ParameterInfo& p = parameters_[i];
    if (p.role == Role::expert_table) return TensorType::i64;
    if (keeps_fp32(p.role)) return TensorType::f32;
    if (!options_.type) return options_.source ? type_like_source(i) : TensorType::f32;
    if (options_.type == SaveType::f32) return TensorType::f32;
    return options_.type == SaveType::fp8 && quantised(p) ? TensorType::f8_e4m3 : TensorType::bf16;
  }
  // What has been FP4, or FP8 in another arrangement, becomes bf16.
  TensorType type_like_source(size_t i) const {
    if (is_fp8_blocks(i)) return TensorType::f8_e4m3;
    return options_.source->weights[i]->type == TensorType::f32 ? TensorType::f32 : TensorType::bf16;
  }
  bool is_fp8_blocks(size_t i) const {
    const TensorEntry* s = options_.source->scales[i];
    return options_.source->weights[i]->type == TensorType::f8_e4m3 && s && s->type == TensorType::f32 &&
           ends_with(s->name, "_scale_inv");
  }

  bool source_will_do(size_t i) const {
    if (!options_.source) return false;
    if (parameters_[i].role == Role::expert_table) return unchanged(i);  // I32 or I64, as it came
    if (options_.type && !options_.keep_unchanged) {
      const TensorType want = target_type(i);
      if (options_.source->weights[i]->type != want || (want == TensorType::f8_e4m3 && !is_fp8_blocks(i))) return false;
    }
    return unchanged(i);
  }

  void add(size_t i, const std::string& name) {
    const model::ParameterInfo& p = parameters_[i];
    const std::vector<std::string> scale = scale_names(name);
    if (source_will_do(i)) {
      const TensorEntry& e = *options_.source->weights[i];
      list.push_back({e, &e, i});
      list.back().entry.name = name;
      if (const TensorEntry* s = options_.source->scales[i]) {
        list.push_back({*s, s, i});
        list.back().entry.name = ends_with(s->name, ".scale") ? scale.back() : scale.front();
      }
      return;
    }
    const TensorType type = target_type(i);
    list.push_back({{name, type, file_shape(p), nullptr, static_cast<size_t>(p.size() * io::tensor_type_bytes(type))},
                    nullptr,
                    i});
    if (type != TensorType::f8_e4m3) return;
    const auto [block_rows, block_cols] = config_.quantisation;
    const std::vector<int64_t> shape = {(p.rows + block_rows - 1) / block_rows, (p.cols + block_cols - 1) / block_cols};
    list.push_back({{scale.front(), TensorType::f32, shape, nullptr, static_cast<size_t>(shape[0] * shape[1]) * 4},
                    nullptr,
                    i,
                    true});
  }

  const model::ModelConfig& config_;
  const model::ModelType& type_;
  const std::vector<model::ParameterInfo>& parameters_;
  const RowReader& rows_;
  const SaveOptions& options_;
  std::vector<std::string> copy_names_;
};

// Streams the tensors of one file.
class ShardWriter {
 public:
  ShardWriter(const Plan& plan, const model::ModelConfig& config, const std::vector<model::ParameterInfo>& parameters)
      : plan_(plan), parameters_(parameters), block_(config.quantisation) {}

  void write(const std::string& path, std::span<const Planned> tensors) {
    std::vector<TensorEntry> entries;
    for (const Planned& t : tensors) entries.push_back(t.entry);
    io::SafetensorsWriter out(path, entries, {{"format", "pt"}});
    for (const Planned& t : tensors) {
      if (t.source)
        out.append(t.source->data, t.source->bytes);
      else if (t.scales)
        out.append(factors_.data(), factors_.size() * sizeof(float));
      else
        encode(t, out);
    }
    out.finish();
  }

 private:
  void encode(const Planned& t, io::SafetensorsWriter& out) {
    const model::ParameterInfo& p = parameters_[t.index];
    const bool fp8 = t.entry.type == TensorType::f8_e4m3;
    const int64_t step = fp8 ? block_.block_rows : std::max<int64_t>(1, kChunkElements / std::max<int64_t>(1, p.cols));
    factors_.clear();
    for (int64_t r = 0; r < p.rows; r += step) {
      const int64_t n = std::min(step, p.rows - r);
      values_.resize(static_cast<size_t>(n * p.cols));
      const Mat rows(values_.data(), f32_t, n, p.cols);
      plan_.read(t.index, r, n, rows);
      if (t.entry.type == TensorType::f32) {
        out.append(values_.data(), values_.size() * sizeof(float));
      } else if (t.entry.type == TensorType::i64) {
        const std::vector<int64_t> whole(values_.begin(), values_.end());
        out.append(whole.data(), whole.size() * sizeof(int64_t));
      } else if (fp8) {
        codes_.resize(values_.size());
        const size_t before = factors_.size();
        factors_.resize(before + static_cast<size_t>((p.cols + block_.block_cols - 1) / block_.block_cols));
        quantise_block_rows(rows, block_.block_cols, codes_.data(), factors_.data() + before);
        out.append(codes_.data(), codes_.size());
      } else {
        halves_.resize(values_.size());
        std::transform(values_.begin(), values_.end(), halves_.begin(), [](float v) { return to_bf16(v); });
        out.append(halves_.data(), halves_.size() * sizeof(bf16));
      }
    }
  }

  const Plan& plan_;
  const std::vector<model::ParameterInfo>& parameters_;
  model::Quantisation block_;
  std::vector<float> values_, factors_;
  std::vector<bf16> halves_;
  std::vector<uint8_t> codes_;
};

// Ends of the shards: a tensor's scales stay with it.
std::vector<size_t> cut(const std::vector<Planned>& list, size_t shard_bytes) {
  std::vector<size_t> ends;
  size_t bytes = 0;
  for (size_t i = 0; i < list.size(); ++i) {
    if (bytes > 0 && bytes + list[i].entry.bytes > shard_bytes && !list[i].scales) {
      ends.push_back(i);
      bytes = 0;
    }
    bytes += list[i].entry.bytes;
  }
  ends.push_back(list.size());
  return ends;
}

void describe_types(nlohmann::json& config, const std::vector<Planned>& list, const SaveOptions& o) {
  const bool scaled = std::any_of(list.begin(), list.end(), [](const Planned& t) {
    return t.entry.type == TensorType::f8_e4m3 || t.entry.type == TensorType::f8_e5m2 || t.entry.type == TensorType::i8;
  });
  if (!scaled) config.erase("quantization_config");
  if (std::none_of(list.begin(), list.end(), [](const Planned& t) { return t.entry.type == TensorType::i8; }))
    config.erase("expert_dtype");  // V4's word for FP4
  if (scaled && !config.contains("quantization_config"))
    config["quantization_config"] = {
        {"quant_method", "fp8"}, {"fmt", "e4m3"}, {"activation_scheme", "dynamic"}, {"weight_block_size", {128, 128}}};
  if (!o.type) return;
  config.erase("dtype");  // transformers' newer spelling of the same
  config["torch_dtype"] = o.type == SaveType::f32 ? "float32" : "bfloat16";
}

}  // namespace

SaveType parse_save_type(const std::string& name) {
  if (const auto type = find_named<SaveType>(name)) return *type;
  throw Error("dtype", "unknown value \"" + name + "\"", "one of bf16, fp32, fp8", ExitCode::usage);
}

void save_model(const std::string& directory, const model::ModelConfig& config,
                const std::vector<model::ParameterInfo>& parameters, const RowReader& rows, nlohmann::json config_json,
                const SaveOptions& options) {
  BK_CHECK(rows || options.source);
  const Plan plan(config, parameters, rows, options);
  describe_types(config_json, plan.list, options);
  io::write_json(directory + "/config.json", config_json);
  ShardWriter writer(plan, config, parameters);
  const std::vector<size_t> ends = cut(plan.list, options.shard_bytes);
  if (ends.size() == 1) return writer.write(directory + "/model.safetensors", plan.list);
  nlohmann::json weight_map = nlohmann::json::object();
  size_t total = 0, begin = 0;
  for (size_t s = 0; s < ends.size(); ++s) {
    char name[64];
    std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", s + 1, ends.size());
    writer.write(directory + "/" + name, std::span(plan.list).subspan(begin, ends[s] - begin));
    for (; begin < ends[s]; ++begin) {
      weight_map[plan.list[begin].entry.name] = name;
      total += plan.list[begin].entry.bytes;
    }
  }
  io::write_json(directory + "/model.safetensors.index.json",
                 {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}});
}

}  // namespace birkhoff::checkpoint
