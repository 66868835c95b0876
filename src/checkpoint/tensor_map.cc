#include "checkpoint/tensor_map.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>

#include "core/error.h"
#include "model/config/model_type.h"

namespace birkhoff::checkpoint {
namespace {

using io::TensorEntry;
using io::TensorType;
using layers::Role;
using ops::ScaleType;
using ops::StoredType;

constexpr int64_t kFp4Block = 32;  // inputs of a row that share a factor (models.md G.10)

std::optional<StoredType> stored_type(TensorType t) {
  switch (t) {
    case TensorType::f64:
      return StoredType::f64;
    case TensorType::f32:
      return StoredType::f32;
    case TensorType::f16:
      return StoredType::f16;
    case TensorType::bf16:
      return StoredType::bf16;
    case TensorType::f8_e4m3:
      return StoredType::f8_e4m3;
    case TensorType::f8_e5m2:
      return StoredType::f8_e5m2;
    case TensorType::i8:
    case TensorType::u8:
      return StoredType::fp4;
    default:
      return std::nullopt;
  }
}

std::optional<ScaleType> scale_type(TensorType t) {
  if (t == TensorType::f32) return ScaleType::f32;
  if (t == TensorType::f8_e8m0) return ScaleType::f8_e8m0;
  return std::nullopt;
}

int64_t div_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class T>
int64_t whole_number(const uint8_t* data, int64_t i) {
  T v;
  std::memcpy(&v, data + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return v;
}

class Matcher {
 public:
  Matcher(const WeightFiles& files, const model::ModelConfig& config)
      : files_(files), config_(config), type_(model::find_model_type(config.model_type)) {}

  void add(const model::ParameterInfo& p) {
    map_.weights.push_back(nullptr);
    map_.scales.push_back(nullptr);
    map_.views.emplace_back();
    const std::vector<std::string> names = type_.file_names(config_, p.name);
    const TensorEntry* e = nullptr;
    for (const std::string& n : names) {
      const TensorEntry* found = files_.find(n);
      if (!found || found == e) continue;  // naming schemes may agree on a name
      used_.insert(n);
      if (e)
        complain("duplicate " + n + ": " + e->name + " is the same tensor");
      else
        e = found;
    }
    if (!e) {
      std::string theirs = names.front();
      for (size_t i = 1; i < names.size(); ++i) theirs += " or " + names[i];
      return complain("missing   " + theirs + (names.front() == p.name ? "" : " (" + p.name + ")") + ", expected " +
                      shape_text(file_shape(p)));
    }
    map_.weights.back() = e;
    const std::string both = e->name == p.name ? p.name : e->name + " (" + p.name + ")";
    ops::StoredTensor v;
    if (view(p, *e, both, v))
      map_.views.back().append(v);
    else
      map_.weights.back() = nullptr;
  }

  TensorMap finish() {
    for (const std::string& n : files_.duplicates()) complain("duplicate " + n + ": stands in two files");
    for (const auto& [name, e] : files_.tensors()) {
      if (used_.count(name)) continue;
      if (name == "lm_head.weight" && config_.tie_word_embeddings) check_tied_head(*e);
      if (e->bytes == 0 || type_.ignores(config_, name) || belongs_to_ignored(name))
        map_.ignored.push_back(e);
      else
        complain("unknown   " + name + " " + shape_text(e->shape));
    }
    if (!problems_.empty())
      throw Error("checkpoint", files_.directory() + ": tensors do not match the configuration:" + problems_,
                  "is config.json the one of these weights?");
    return std::move(map_);
  }

 private:
  void complain(const std::string& text) { problems_ += "\n  " + text; }

  // A head beside a tied embedding is a copy of it: some programs would use it, others not.
  void check_tied_head(const TensorEntry& head) {
    const TensorEntry* embedding = files_.find("model.embed_tokens.weight");
    if (!embedding || (head.shape == embedding->shape && head.type == embedding->type &&
                       std::memcmp(head.data, embedding->data, head.bytes) == 0))
      return;
    complain(
        "not tied  lm_head.weight differs from model.embed_tokens.weight, and tie_word_embeddings is true: set it to "
        "false to use the head of the file");
  }

  // Scales of a tensor that is itself passed over.
  bool belongs_to_ignored(const std::string& name) const {
    for (const auto& [suffix, weight] :
         {std::pair<std::string_view, const char*>{".weight_scale_inv", ".weight"}, {".scale", ".weight"}}) {
      if (name.size() > suffix.size() && name.compare(name.size() - suffix.size(), suffix.size(), suffix) == 0)
        return type_.ignores(config_, name.substr(0, name.size() - suffix.size()) + weight);
    }
    return false;
  }

  // Experts by token id (models.md G.7): whole numbers, each the number of an expert.
  bool table_view(const model::ParameterInfo& p, const TensorEntry& e, const std::string& both, ops::StoredTensor& v) {
    if (e.type != TensorType::i64 && e.type != TensorType::i32) {
      complain("type      " + both + ": I64 or I32 expected, file has " + io::tensor_type_name(e.type));
      return false;
    }
    if (e.shape != file_shape(p)) {
      complain("shape     " + both + ": expected " + shape_text(file_shape(p)) + ", file has " + shape_text(e.shape));
      return false;
    }
    v.data = reinterpret_cast<const uint8_t*>(e.data);
    v.rows = p.rows;
    v.cols = p.cols;
    v.type = e.type == TensorType::i64 ? StoredType::i64 : StoredType::i32;
    const std::string wrong = experts_out_of_range(v, config_);
    if (!wrong.empty()) complain("value     " + both + ": " + wrong);
    return wrong.empty();
  }

  bool view(const model::ParameterInfo& p, const TensorEntry& e, const std::string& both, ops::StoredTensor& v) {
    if (p.role == Role::expert_table) return table_view(p, e, both, v);
    const TensorEntry* scale = nullptr;
    for (const std::string& n : scale_names(e.name)) {
      if (const TensorEntry* s = files_.find(n)) {
        scale = s;
        used_.insert(n);
      }
    }
    const std::optional<StoredType> type = stored_type(e.type);
    const bool fp4 = type == StoredType::fp4;
    if (!type || (fp4 && !scale)) {
      complain("type      " + both +
               ": F64, F32, BF16, F16, F8_E4M3, F8_E5M2 or FP4 in I8 with scales expected, file has " +
               io::tensor_type_name(e.type));
      return false;
    }
    std::vector<int64_t> shape = file_shape(p);
    if (fp4) shape.back() = div_up(shape.back(), 2);
    if (e.shape != shape || (fp4 && p.cols % 2)) {
      complain("shape     " + both + ": expected " + shape_text(shape) + ", file has " + shape_text(e.shape));
      return false;
    }
    v.data = reinterpret_cast<const uint8_t*>(e.data);
    v.rows = p.rows;
    v.cols = p.cols;
    v.type = *type;
    if (scale) return add_scale(p, *scale, v);
    return true;
  }

  bool add_scale(const model::ParameterInfo& p, const TensorEntry& s, ops::StoredTensor& v) {
    const std::optional<ScaleType> type = scale_type(s.type);
    const bool quantised = ops::stored_format(v.type).block_bytes == 1;
    if (!type || !quantised) {
      complain(
          "type      " + s.name +
          (quantised ? ": F32 or F8_E8M0 expected, file has " : ": scales of a tensor that is not FP8 or FP4, in ") +
          io::tensor_type_name(s.type));
      return false;
    }
    const auto [block_rows, block_cols] =
        v.type == StoredType::fp4 ? model::Quantisation{1, kFp4Block} : config_.quantisation;
    const std::vector<int64_t> shape = {div_up(p.rows, block_rows), div_up(p.cols, block_cols)};
    if (s.shape != shape) {
      complain("shape     " + s.name + ": expected " + shape_text(shape) + ", file has " + shape_text(s.shape));
      return false;
    }
    v.scale = reinterpret_cast<const uint8_t*>(s.data);
    v.scale_type = *type;
    v.block_rows = block_rows;
    v.block_cols = block_cols;
    map_.scales.back() = &s;
    return true;
  }

  const WeightFiles& files_;
  const model::ModelConfig& config_;
  const model::ModelType& type_;
  std::set<std::string> used_;
  std::string problems_;
  TensorMap map_;
};

bool is_vector(Role r) {
  return r == Role::norm || r == Role::bias || r == Role::linear_bias || r == Role::router_bias ||
         r == Role::hc_scale || r == Role::hc_base;
}

}  // namespace

std::string shape_text(const std::vector<int64_t>& s) {
  std::string t = "[";
  for (size_t i = 0; i < s.size(); ++i) t += (i ? "," : "") + std::to_string(s[i]);
  return t + "]";
}

std::string experts_out_of_range(const ops::StoredTensor& table, const model::ModelConfig& c) {
  const bool wide = table.type == StoredType::i64;
  for (int64_t i = 0; i < table.rows * table.cols; ++i) {
    const int64_t expert = wide ? whole_number<int64_t>(table.data, i) : whole_number<int32_t>(table.data, i);
    if (expert < 0 || expert >= c.n_routed_experts)
      return "expert " + std::to_string(expert) + " of n_routed_experts " + std::to_string(c.n_routed_experts);
  }
  return "";
}

std::vector<int64_t> file_shape(const model::ParameterInfo& p) {
  return is_vector(p.role) ? std::vector<int64_t>{p.cols} : std::vector<int64_t>{p.rows, p.cols};
}

std::vector<std::string> scale_names(const std::string& name) {
  constexpr std::string_view kWeight = ".weight";
  if (name.size() <= kWeight.size() || name.compare(name.size() - kWeight.size(), kWeight.size(), kWeight) != 0)
    return {};
  return {name + "_scale_inv", name.substr(0, name.size() - kWeight.size()) + ".scale"};
}

std::string drop_absent_predictors(const WeightFiles& files, model::ModelConfig& config) {
  if (config.num_nextn_predict_layers == 0) return "";
  const model::ModelType& type = model::find_model_type(config.model_type);
  model::Weights shapes(config);
  for (const model::ParameterInfo& p : model::list_parameters(shapes)) {
    if (model::types::block_of(p.name) < config.num_hidden_layers) continue;
    for (const std::string& name : type.file_names(config, p.name))
      if (files.find(name)) return "";
  }
  config.num_nextn_predict_layers = 0;
  return files.directory() +
         " has no tensors of its prediction modules (num_nextn_predict_layers): opened without them";
}

TensorMap match_tensors(const WeightFiles& files, const model::ModelConfig& config,
                        const std::vector<model::ParameterInfo>& parameters) {
  Matcher matcher(files, config);
  for (const model::ParameterInfo& p : parameters) matcher.add(p);
  return matcher.finish();
}

}  // namespace birkhoff::checkpoint
