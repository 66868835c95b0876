// Settings of GGUF files that are put together in memory.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "checkpoint/gguf_config.h"
#include "checkpoint/gguf_files.h"
#include "support/gguf_bytes.h"
#include "support/matrix.h"
#include "support/temp_dir.h"

namespace birkhoff::test {

inline nlohmann::json config_of(const GgufBytes& g, checkpoint::GgufDescription* said = nullptr) {
  TempDir dir;
  const std::string path = dir.file("m.gguf", g.bytes());
  const io::GgufModel m(path);
  checkpoint::GgufDescription d;
  const nlohmann::json j = checkpoint::gguf_config(m, d);
  model::config_from_json(j);
  if (said) *said = d;
  return j;
}

template <class F>
void expect_no_config(GgufBytes g, F&& edit, std::vector<std::string> parts) {
  edit(g);
  TempDir dir;
  const std::string path = dir.file("m.gguf", g.bytes());
  parts.push_back(path);
  expect_error([&] { checkpoint::GgufFiles files(path); }, parts);
}

}  // namespace birkhoff::test
