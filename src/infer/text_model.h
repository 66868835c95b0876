// Text on both sides of a model: its tokenizer (bytes for a byte model), which ids it may write, which end a text.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "infer/engine.h"
#include "text/tokenizer/tokenizer.h"

namespace birkhoff::infer {

class TextModel {
 public:
  // The tokenizer of the engine's directory; without one, and where it makes every byte a token as a GGUF file of such
  // a model does, bytes are tokens, if the vocabulary is 256 or the model was trained here. Throws Error when there is
  // neither.
  explicit TextModel(const Engine& engine);
  // For models that read and write ids only: no tokenizer is looked for, every id may be written, none ends the text.
  static bool has_text(const Engine& engine);

  const std::shared_ptr<const text::Tokenizer>& tokenizer() const { return tokenizer_; }  // nullptr for bytes
  // The tokens of a prompt, with those that the model expects around it. Never empty: without any the text begins with
  // the start token, or a line break where there is none.
  std::vector<int32_t> prompt(std::string_view text) const;
  const std::vector<int32_t>& padding() const { return padding_; }  // ids without a token, never to be written
  bool ends(int32_t id) const;

 private:
  std::shared_ptr<const text::Tokenizer> tokenizer_;
  std::vector<int32_t> padding_;
  std::vector<int32_t> ends_;  // eos_token, and eos_token_id of generation_config.json and the model's configuration
};

// Ids to text as they come; for byte models too.
class TextWriter {
 public:
  // prompt: the ids that were fed before, whose text is not written.
  TextWriter(const TextModel& model, std::span<const int32_t> prompt, bool skip_special = true);
  std::string push(int32_t id);
  std::string finish();

 private:
  std::unique_ptr<text::StreamDecoder> decoder_;  // nullptr for bytes, which are written as they are
};

}  // namespace birkhoff::infer
