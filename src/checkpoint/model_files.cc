#include "checkpoint/model_files.h"

#include "checkpoint/hf_directory.h"
#include "io/gguf.h"
#include "model/config/json_fields.h"

namespace birkhoff::checkpoint {

std::string resolve_model(const std::string& path, std::string* note) {
  return io::is_gguf(path) ? path : resolve_model_directory(path, note);
}

nlohmann::json read_model_config(const std::string& path) {
  return io::is_gguf(path) ? GgufFiles(path).config() : read_config_json(path);
}

ModelFiles::ModelFiles(const std::string& path) : path_(path) {
  if (io::is_gguf(path)) {
    gguf_ = std::make_unique<GgufFiles>(path);
    config_ = gguf_->config();
  } else {
    config_ = read_config_json(path);
    nlohmann::json settings = config_;
    for (const char* key : {"training", "panels"}) settings.erase(key);
    model::config_from_json(settings);  // of no model: refused for what it says, not for weights that are not there
    weights_ = std::make_unique<WeightFiles>(path);
  }
}

size_t ModelFiles::bytes() const { return gguf_ ? gguf_->model().bytes() : weights_->bytes(); }

std::vector<std::string> ModelFiles::paths() const { return gguf_ ? gguf_->model().paths() : weights_->paths(); }

std::vector<std::span<const std::byte>> ModelFiles::regions() const {
  std::vector<std::span<const std::byte>> list;
  if (gguf_)
    for (const io::GgufTensor* t : gguf_->model().tensors()) list.emplace_back(t->data, t->bytes);
  else
    for (const auto& [name, e] : weights_->tensors()) list.emplace_back(e->data, e->bytes);
  return list;
}

std::vector<std::string> ModelFiles::complete(model::ModelConfig& c) const {
  std::vector<std::string> notes;
  std::string dropped;
  if (gguf_) {
    notes = gguf_->notes();
    gguf_->complete(c);
    dropped = gguf_->drop_incomplete_predictors(c);
  } else {
    dropped = drop_absent_predictors(*weights_, c);
  }
  if (!dropped.empty()) notes.push_back(dropped);
  return notes;
}

TensorMap ModelFiles::match(const model::ModelConfig& c, const std::vector<model::ParameterInfo>& parameters) const {
  return gguf_ ? gguf_->match(c, parameters) : match_tensors(*weights_, c, parameters);
}

void ModelFiles::read_rows(const TensorMap& map, const model::ModelConfig& c, const model::ParameterInfo& p, size_t i,
                           int64_t first, int64_t count, Mat out) {
  const ops::StoredMatrix& m = map.views[i];
  const bool rotary = p.name.ends_with("self_attn.q_proj.weight") || p.name.ends_with("self_attn.k_proj.weight");
  if (!rotary || !c.interleaved_rows) return ops::expand_rows(m, first, count, out);
  for (int64_t r = 0; r < count; ++r) ops::expand_rows(m, c.rotary_row(first + r), 1, out.row_block(r, 1));
}

}  // namespace birkhoff::checkpoint
