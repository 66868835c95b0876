// Panels of quantised weights (ops/gemm/quant_matrix.h) in a file that is mapped, the first time as every other: they
// are made matrix by matrix into the file, so that a model may be larger than memory. What is in them is nobody's
// business here.
//
// A file belongs to its key: size, time of the last change and a sample of the content of every file of the model, the
// configuration, the formats, the shapes of all panels and what the quantisation makes of a fixed matrix, which changes
// with the layout of panels. Hashing all of a model would take as long as quantising it; files whose time is the same
// and whose samples are equal hold the same weights. Every 16 MiB of panels have a checksum, looked at before anything
// is believed, of panels that memory cannot hold a sample of them: a damaged file is made again.
#pragma once
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "checkpoint/model_files.h"
#include "core/arena.h"
#include "core/exec.h"
#include "core/pages.h"
#include "io/mapped_file.h"
#include "model/model.h"

namespace birkhoff::checkpoint {

// What a model directory that carries its panels was quantised to: the key "panels" of its config.json, written by
// birkhoff convert --weights. Nothing of other models. Throws Error naming key and value.
std::optional<model::WeightFormats> carried_formats(const nlohmann::json& config);
nlohmann::json panels_key(const model::WeightFormats& f);

class PanelCache {
 public:
  // directory: where files are, created when one is written; "": nowhere, nothing is read or kept. measured: a model of
  // `files` whose panels are `bytes`, of a measuring arena.
  PanelCache(std::string directory, const ModelFiles& files, const model::Model& measured, size_t bytes);
  // Maps the file that is there, and looks at all checksums, or, of more than `memory` bytes of panels, at
  // kSampledChunks of them. False: there is none, or none to believe.
  static constexpr size_t kSampledChunks = 16;  // 256 MiB
  bool open(const Exec& exec, size_t memory);
  // Makes the file, complete or not at all, of what `measured` quantises, and maps it. False: there is no place for
  // one. Throws Error when it cannot be written.
  bool make(const Exec& exec, const model::Model& measured, const model::Model::Progress& progress);
  ByteRange mapped() const { return file_ ? std::as_bytes(file_->bytes()) : ByteRange(); }
  // The memory of the panels: those of the file, or fresh ones that are to be filled. As long as this object.
  Arena& panels();
  const std::string& path() const { return path_; }            // "" without a directory
  const std::string& complaint() const { return complaint_; }  // of the file that is not believed, or ""

 private:
  bool map(const Exec& exec, size_t checked_chunks);
  void write_file(const Exec& exec, const model::Model& measured, const model::Model::Progress& progress) const;
  std::string directory_, path_, key_, complaint_;
  size_t bytes_;
  std::unique_ptr<io::MappedFile> file_;
  std::unique_ptr<Arena> panels_;
};

}  // namespace birkhoff::checkpoint
