#include "infer/measured_model.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/pages.h"
#include "model/config/json_fields.h"
#include "model/config/notes.h"

namespace birkhoff::infer {
namespace {

DType compute_type(const std::string& asked, const nlohmann::json& config) {
  std::string name = asked;
  if (name.empty() && config.contains("training")) name = model::field_or<std::string>(config["training"], "dtype", "");
  if (name.empty())
    name = model::field_or(config, "torch_dtype", model::field_or<std::string>(config, "dtype", "")) == "float32"
               ? dtype_name(DType::f32)
               : dtype_name(DType::bf16);
  if (const auto type = find_named<DType>(name)) return *type;
  throw Error("dtype", "unknown value \"" + name + "\"", "one of bf16, fp32", ExitCode::usage);
}

model::ModelConfig config_with(nlohmann::json config, const std::vector<std::string>& settings, std::string& dtype) {
  for (const char* key : {"training", "panels"}) config.erase(key);
  model::ModelConfig c = model::config_from_json(config);
  for (const std::string& text : settings) {
    const auto [key, value] = model::parse_setting(text);
    if (key == "dtype")
      model::assign_field(key, value, dtype);
    else if (!model::set_model_field(c, key, value))
      throw Error("settings", "unknown setting \"" + key + "\" of a model that is run",
                  "dtype and the model's settings of docs/settings.md can be set", ExitCode::usage);
  }
  model::validate(c);
  return c;
}

}  // namespace

MeasuredModel::MeasuredModel(const std::string& path, const EngineOptions& options)
    : files(std::make_unique<checkpoint::ModelFiles>(path)) {
  std::string dtype = options.compute;
  config = config_with(files->config(), options.set, dtype);
  compute = compute_type(dtype, files->config());
  config.latent_attention = options.latent_attention;
  notes = model::reading_notes(config);
  for (const std::string& note : files->complete(config)) notes.push_back(note);
  // A directory that carries its panels is run with them unless something else is asked for.
  carried = checkpoint::carried_formats(files->config());
  weights = carried && options.weights.automatic() ? *carried : options.weights;
  own_panels = carried && options.panels.empty();
  panels_directory = own_panels ? path : options.panels;
  // Panels that are carried have those of the modules too, which nobody reads then.
  if (!options.caches.predictors && !carried) config.num_nextn_predict_layers = 0;
  max_positions = options.max_positions ? options.max_positions
                                        : std::min(config.max_position_embeddings, options.enough_positions);
  if (!options.adapter.empty())
    adapter.emplace(options.adapter, config);
  else if (files->is_directory() && checkpoint::has_adapter(path))
    adapter.emplace(path, config);
  map = files->match(config, model::list_parameters(model::Weights(config)));
  shapes = std::make_unique<model::Model>(config, compute, max_positions, map.views, weights, memory, panels);
  if (adapter) shapes->attach_adapters(adapter->spec(), false, memory);
}

model::Model::Progress MeasuredModel::letting_go(const model::Model::Progress& progress) const {
  return [mapped = files.get(), progress, let_go_at = int64_t{0}](int64_t so_far, int64_t all) mutable {
    if (so_far - let_go_at > all / 64 || so_far == all) {
      for (const ByteRange region : mapped->regions()) let_go(region);
      let_go_at = so_far;
    }
    if (progress) progress(so_far, all);
  };
}

bool make_panels(const std::string& path, const EngineOptions& options) {
  const MeasuredModel m(path, options);
  checkpoint::PanelCache panels(m.panels_directory, *m.files, *m.shapes, m.panels.peak());
  return panels.make(Exec(options.threads), *m.shapes, m.letting_go(options.progress));
}

}  // namespace birkhoff::infer
