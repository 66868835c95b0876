// Models written as GGUF files.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "checkpoint/model_files.h"
#include "checkpoint/save_gguf.h"

namespace birkhoff::test {

// A model opened, written as a GGUF file of that type.
inline void to_gguf(const std::string& from, const std::string& to, ops::StoredType type, ops::StoredType head,
                    int threads = 2) {
  checkpoint::ModelFiles files(from);
  model::ModelConfig c = model::config_from_json(files.config());
  files.complete(c);
  const model::Weights shapes(c);
  const auto parameters = model::list_parameters(shapes);
  const checkpoint::TensorMap map = files.match(c, parameters);
  const Exec exec(threads);
  checkpoint::GgufSaveOptions o;
  o.matrices = type, o.head = head;
  io::GgufMetadata m;
  m.put("tokenizer.ggml.model", "none");
  checkpoint::save_gguf(exec, to, c, parameters, map, {}, m, o);
}

}  // namespace birkhoff::test
