// A model of files before it has memory: what it is, and how much it will need.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/adapter.h"
#include "checkpoint/model_files.h"
#include "checkpoint/panel_cache.h"
#include "checkpoint/tensor_map.h"
#include "core/arena.h"
#include "infer/engine.h"
#include "model/model.h"

namespace birkhoff::infer {

struct MeasuredModel {
  // path: of checkpoint::resolve_model. Throws Error.
  MeasuredModel(const std::string& path, const EngineOptions& options);

  // progress, and that pages of the files leave the process once they were quantised from: they would count as its own
  // until it ends. Valid while the files are.
  model::Model::Progress letting_go(const model::Model::Progress& progress) const;

  std::vector<std::string> notes;  // for who opens the model
  std::unique_ptr<checkpoint::ModelFiles> files;
  model::ModelConfig config;
  DType compute = bf16_t;
  int64_t max_positions = 0;
  std::optional<model::WeightFormats> carried;  // of the panels that the directory carries
  model::WeightFormats weights;
  bool own_panels = false;       // those that are carried, which are not written
  std::string panels_directory;  // or ""
  std::optional<checkpoint::AdapterFiles> adapter;
  checkpoint::TensorMap map;
  Arena memory = Arena::measuring(), panels = Arena::measuring();
  std::unique_ptr<model::Model> shapes;  // holds no weight
};

// Writes the panels of a model into options.panels, matrix by matrix, and opens nothing. False: no matrix is
// quantised. Throws Error.
bool make_panels(const std::string& path, const EngineOptions& options);

}  // namespace birkhoff::infer
