// Small model directories with a real tokenizer.
#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "checkpoint/hf_directory.h"
#include "support/golden.h"
#include "support/small_model.h"
#include "text/tokenizer/tokenizer.h"

namespace birkhoff::test {

// tokenizer: a folder of tests/golden/tokenizers; padding: rows of the vocabulary behind its tokens. change: what else
// to do to the weights.
template <class F>
void write_tokenized_model(const std::string& dir, const std::string& tokenizer, int64_t padding, F&& change) {
  const auto t = text::Tokenizer::open(test::committed_dir() + "/tokenizers/" + tokenizer);
  model::ModelConfig c = small_config("plain", 1, false);
  c.vocab_size = t->size() + padding;
  const Exec exec(1);
  SmallModel s(c, f32_t, 8, exec);
  change(*s.m);
  checkpoint::save_weights(dir, *s.m, model::config_to_json(s.m->config), f32_t);
  for (const std::string& file : t->files()) std::filesystem::copy(file, dir);
}
inline void write_tokenized_model(const std::string& dir, const std::string& tokenizer, int64_t padding) {
  write_tokenized_model(dir, tokenizer, padding, [](model::Model&) {});
}

}  // namespace birkhoff::test
