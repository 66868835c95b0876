// The token ids of what a model is asked, as lm-evaluation-harness 0.4.13 makes them of strings.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "eval/continuations.h"
#include "infer/text_model.h"
#include "text/jinja/masked_text.h"

namespace birkhoff::eval {

// All that precedes an answer. rendered: by a chat format, in whose contents added tokens are plain text; elsewhere
// they match.
struct PromptText {
  text::chat::MaskedText text;
  bool rendered = false;
};

class PromptEncoder {
 public:
  // max_length: of what the model reads, tokens; longer texts lose their beginning. text outlives the encoder.
  PromptEncoder(const infer::TextModel& text, int64_t max_length) : text_(text), max_length_(max_length) {}

  struct Encoded {
    Continuation continuation;
    int64_t cut = 0;         // tokens of the beginning
    int64_t answer_cut = 0;  // of these, of the continuation itself, which goes without them
  };
  // White space at the end of the context goes to the continuation; that is what the ids of both together have behind
  // as many as those of the context alone. A continuation of more than
  // max_length tokens, which the harness refuses, is scored over its last ones. Throws Error: one without tokens.
  Encoded continuation(const PromptText& context, const std::string& continuation) const;

  struct Prompt {
    std::vector<int32_t> ids;
    int64_t cut = 0;
  };
  // Leaves room for max_tokens. Throws Error when that is none for a prompt.
  Prompt prompt(const PromptText& context, int64_t max_tokens) const;

 private:
  std::vector<int32_t> encode(const PromptText& text) const;
  const infer::TextModel& text_;
  int64_t max_length_;
};

}  // namespace birkhoff::eval
