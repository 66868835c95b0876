#include "checkpoint/gguf_files.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <optional>
#include <set>

#include "checkpoint/gguf_names.h"
#include "core/bf16.h"
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

bool is_gguf_vector(Role r) {
  return r == Role::norm || r == Role::bias || r == Role::linear_bias || r == Role::router_bias;
}

}  // namespace

class GgufMatcher {
 public:
  GgufMatcher(GgufFiles& files, const model::ModelConfig& c) : files_(files), model_(files.model()), config_(c) {}

  void add(const model::ParameterInfo& p) {
    map_.weights.push_back(nullptr);
    map_.scales.push_back(nullptr);
    map_.views.emplace_back();
    const std::vector<GgufPlace> places = gguf_places(config_, p);
    for (const GgufPlace& place : places) {
      const io::GgufTensor* t = model_.find(place.name);
      if (!t) continue;
      used_.insert(t->name);
      map_.views.back() = view(p, place, *t);
      return;
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

  TensorMap finish(DType latent) {
    for (const io::GgufTensor* t : model_.tensors()) {
      if (used_.contains(t->name) || gguf_ignores(config_, t->name)) continue;
      complain("unknown   " + std::string(t->name) + " " + shape_text(t->shape()));
    }
    if (!problems_.empty())
      throw Error("checkpoint", model_.metadata().path() +
                                    ": tensors do not match the model that the metadata describe:" + problems_);
    take_latents(latent);
    return std::move(map_);
  }

 private:
  void complain(const std::string& text) { problems_ += "\n  " + text; }

  bool fits(const std::string& both, const io::GgufTensor& t, std::vector<int64_t> want, ops::StoredTensor& v) {
    const std::optional<StoredType> type = stored_type(*t.type);
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

  ops::StoredTensor view(const model::ParameterInfo& p, const GgufPlace& place, const io::GgufTensor& t) {
    ops::StoredTensor v;
    if (!fits(place.name + " (" + p.name + ")", t, place.shape(p.cols, is_gguf_vector(p.role)), v)) return v;
    v.data = v.row(std::max<int64_t>(0, place.expert) * place.rows + place.first_row);
    v.rows = p.rows;
    return v;
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
    GgufFiles::SplitLatent s;
    s.k.append(k_view);
    s.v.append(v_view);
    files_.split_.push_back(std::move(s));
    latents_.push_back(map_.views.size() - 1);
    map_.views.back().rows = p.rows;
    map_.views.back().cols = p.cols;
  }

  void take_latents(DType dtype) {
    files_.heads_ = config_.num_attention_heads;
    const auto take = [&](Arena& arena) {
      for (size_t i = 0; i < latents_.size(); ++i) {
        ops::StoredTensor& v = map_.views[latents_[i]];
        const Mat out = arena.mat(dtype, v.rows, v.cols);
        files_.split_[i].out = out;
        v.data = static_cast<const uint8_t*>(out.data);
        v.type = dtype == f32_t ? StoredType::f32 : StoredType::bf16;
      }
    };
    if (latents_.empty()) return;
    Arena measuring = Arena::measuring();
    take(measuring);
    files_.memory_ = std::make_unique<Arena>(measuring.peak());
    take(*files_.memory_);
  }

  GgufFiles& files_;
  const io::GgufModel& model_;
  const model::ModelConfig& config_;
  std::set<std::string_view> used_;
  std::vector<size_t> latents_;  // parameters
  std::string problems_;
  TensorMap map_;
};

GgufFiles::GgufFiles(const std::string& path) : model_(path), config_(gguf_config(model_, description_)) {
  about_file(path, [&] { model::config_from_json(config_); });
}

TensorMap GgufFiles::match(const model::ModelConfig& c, const std::vector<model::ParameterInfo>& parameters,
                           DType latent) {
  split_.clear();
  memory_.reset();
  GgufMatcher matcher(*this, c);
  for (const model::ParameterInfo& p : parameters) matcher.add(p);
  return matcher.finish(latent);
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

void GgufFiles::expand(const Exec& exec) {
  exec.parallel_for(static_cast<int64_t>(split_.size()) * heads_, [&](int64_t task) {
    const SplitLatent& s = split_[static_cast<size_t>(task / heads_)];
    const int64_t h = task % heads_, latent = s.v.cols, nope = s.k.cols, wide = s.v.rows / heads_;
    std::vector<float> k(static_cast<size_t>(latent * nope)), rows(static_cast<size_t>((nope + wide) * latent));
    ops::expand_rows(s.k, h * latent, latent, Mat(k.data(), f32_t, latent, nope));
    for (int64_t i = 0; i < nope; ++i)
      for (int64_t c = 0; c < latent; ++c)
        rows[static_cast<size_t>(i * latent + c)] = k[static_cast<size_t>(c * nope + i)];
    ops::expand_rows(s.v, h * wide, wide, Mat(rows.data() + nope * latent, f32_t, wide, latent));
    const size_t first = static_cast<size_t>(h) * rows.size();
    if (s.out.dtype == f32_t)
      std::copy(rows.begin(), rows.end(), static_cast<float*>(s.out.data) + first);
    else
      std::transform(rows.begin(), rows.end(), static_cast<bf16*>(s.out.data) + first, to_bf16);
  });
}

}  // namespace birkhoff::checkpoint
