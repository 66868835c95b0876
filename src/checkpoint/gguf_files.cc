#include "checkpoint/gguf_files.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <optional>
#include <set>

#include "checkpoint/gguf_names.h"
#include "core/error.h"
#include "model/config/model_type.h"

namespace birkhoff::checkpoint {
namespace {

using layers::Role;
using ops::StoredType;

// Floats and blocks; whole numbers are no weights.
std::optional<StoredType> stored_type(const io::GgufTensorType& t) {
  if (t.name[0] == 'I' && t.name[1] != 'Q') return std::nullopt;
  std::string name = t.name;
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (int i = 0; i < kernels::kStoredTypes; ++i) {
    const auto type = static_cast<StoredType>(i);
    if (const auto f = kernels::stored_format(type); name == f.name) {
      BK_CHECK(f.block_elements == t.elements && f.block_bytes == t.bytes);
      return type;
    }
  }
  return std::nullopt;
}

// Experts by token id.
std::optional<StoredType> table_type(const io::GgufTensorType& t) {
  if (t.name == std::string_view("I32")) return StoredType::i32;
  if (t.name == std::string_view("I64")) return StoredType::i64;
  return std::nullopt;
}

}  // namespace

class GgufMatcher {
 public:
  GgufMatcher(const io::GgufModel& model, const model::ModelConfig& c) : model_(model), config_(c) {}

  void add(const model::ParameterInfo& p) {
    map_.weights.push_back(nullptr);
    map_.scales.push_back(nullptr);
    map_.views.emplace_back();
    const std::vector<GgufPlace> places = gguf_places(config_, p);
    for (const GgufPlace& place : places) {
      const io::GgufTensor* t = model_.find(place.name);
      if (!t) continue;
      used_.insert(t->name);
      return add_tensor(p, place, *t);
    }
    const GgufSplitLatent split = gguf_split_latent(p);
    const io::GgufTensor *k = split.k.empty() ? nullptr : model_.find(split.k),
                         *v = split.v.empty() ? nullptr : model_.find(split.v);
    if (k && v) return add_split(p, *k, *v);
    std::string theirs;
    for (const GgufPlace& place : places) theirs += (theirs.empty() ? "" : " or ") + place.name;
    if (!split.k.empty()) theirs += " or " + split.k + " with " + split.v;
    complain("missing   " + (theirs.empty() ? p.name : theirs + " (" + p.name + ")") + ", expected " +
             shape_text(file_shape(p)));
  }

  TensorMap finish() {
    for (const io::GgufTensor* t : model_.tensors()) {
      if (used_.contains(t->name) || gguf_ignores(config_, t->name)) continue;
      complain("unknown   " + std::string(t->name) + " " + shape_text(t->shape()));
    }
    if (!problems_.empty())
      throw Error("checkpoint", model_.metadata().path() +
                                    ": tensors do not match the model that the metadata describe:" + problems_);
    return std::move(map_);
  }

 private:
  void complain(const std::string& text) { problems_ += "\n  " + text; }

  bool fits(const std::string& both, const io::GgufTensor& t, std::vector<int64_t> want, ops::StoredTensor& v,
            bool table = false) {
    const std::optional<StoredType> type = table ? table_type(*t.type) : stored_type(*t.type);
    if (!type && table) {
      complain("type      " + both + ": I32 or I64 expected, file has " + t.type->name);
      return false;
    }
    if (!type) {
      complain("type      " + both + ": a type of numbers that are no weights, " + t.type->name);
      return false;
    }
    if (t.shape() != want) {
      complain("shape     " + both + ": expected " + shape_text(want) + ", file has " + shape_text(t.shape()));
      return false;
    }
    v.data = reinterpret_cast<const uint8_t*>(t.data);
    v.type = *type;
    v.cols = t.dims[0];
    v.rows = 1;
    for (size_t d = 1; d < t.dims.size(); ++d) v.rows *= t.dims[d];
    return true;
  }

  void add_rows(const ops::StoredTensor& of, int64_t first, int64_t count, bool turned = false) {
    ops::StoredTensor v = of;
    v.data = of.row(first);
    v.rows = count;
    map_.views.back().append(v, turned);
  }

  void add_tensor(const model::ParameterInfo& p, const GgufPlace& place, const io::GgufTensor& t) {
    ops::StoredTensor v;
    const std::string both = place.name + " (" + p.name + ")";
    const bool table = p.role == Role::expert_table;
    if (!fits(both, t, place.shape(p.cols, file_shape(p).size() == 1), v, table)) return;
    if (const std::string wrong = table ? experts_out_of_range(v, config_) : ""; !wrong.empty())
      return complain("value     " + both + ": " + wrong);
    add_rows(v, std::max<int64_t>(0, place.expert) * place.rows + place.first_row, p.rows);
  }

  void add_split(const model::ParameterInfo& p, const io::GgufTensor& k, const io::GgufTensor& v) {
    used_.insert(k.name);
    used_.insert(v.name);
    const int64_t heads = config_.num_attention_heads, nope = config_.qk_nope_head_dim, wide = config_.v_head_dim,
                  latent = config_.kv_lora_rank;
    ops::StoredTensor k_view, v_view;
    const bool k_fits = fits(std::string(k.name) + " (" + p.name + ")", k, {heads, latent, nope}, k_view);
    const bool v_fits = fits(std::string(v.name) + " (" + p.name + ")", v, {heads, wide, latent}, v_view);
    if (!k_fits || !v_fits) return;
    for (int64_t h = 0; h < heads; ++h) {
      add_rows(k_view, h * latent, latent, /*turned=*/true);
      add_rows(v_view, h * wide, wide);
    }
  }

  const io::GgufModel& model_;
  const model::ModelConfig& config_;
  std::set<std::string_view> used_;
  std::string problems_;
  TensorMap map_;
};

GgufFiles::GgufFiles(const std::string& path) : model_(path), config_(gguf_config(model_, description_)) {
  about_file(path, [&] { model::config_from_json(config_); });
}

TensorMap GgufFiles::match(const model::ModelConfig& c, const std::vector<model::ParameterInfo>& parameters) const {
  GgufMatcher matcher(model_, c);
  for (const model::ParameterInfo& p : parameters) matcher.add(p);
  return matcher.finish();
}

std::string GgufFiles::drop_incomplete_predictors(model::ModelConfig& c) const {
  if (c.num_nextn_predict_layers == 0) return "";
  const auto here = [&](const std::string& name) { return model_.find(name) != nullptr; };
  std::string missing;
  const model::Weights shapes(c);
  for (const model::ParameterInfo& p : model::list_parameters(shapes)) {
    if (model::types::block_of(p.name) < c.num_hidden_layers) continue;
    const std::vector<GgufPlace> places = gguf_places(c, p);
    const GgufSplitLatent split = gguf_split_latent(p);
    if (std::any_of(places.begin(), places.end(), [&](const GgufPlace& place) { return here(place.name); })) continue;
    if (!split.k.empty() && here(split.k) && here(split.v)) continue;
    missing = places.empty() ? p.name : places.front().name;
    break;
  }
  if (missing.empty()) return "";
  c.num_nextn_predict_layers = 0;
  return model_.metadata().path() + ": the prediction modules lack " + missing + ": opened without them";
}

}  // namespace birkhoff::checkpoint
