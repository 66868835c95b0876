// A conversation as text to learn from: what the model is to write (its turns, with the token that ends them) and what
// it only reads.
#pragma once
#include <string>
#include <vector>

#include "text/chat/chat_format.h"
#include "text/jinja/masked_text.h"
#include "text/jinja/value.h"

namespace birkhoff::text::chat {

// A stretch of a prompt. Stretches are encoded one by one: the border stands where the prompt ends at inference, too.
struct Stretch {
  MaskedText text;
  bool learn = false;
};
using TrainingSample = std::vector<Stretch>;

// What had to be left out of a conversation.
struct SampleNotes {
  int64_t turns = 0;        // of the assistant
  int64_t rewritten = 0;    // turns left out because the format writes what went before differently once they are there
  int64_t without_end = 0;  // turns learnt without an end token, because the format writes none
};

// messages, tools, options as ChatFormat::render takes them. One sample when the format only appends; otherwise
// (formats that forget old reasoning) one for every turn that later turns change, which then learns that turn alone.
// Without options the encoders think when a message has reasoning_content. Throws Error: the format refuses the
// conversation.
std::vector<TrainingSample> training_samples(const ChatFormat& format, const Value& messages, const Value& tools,
                                             const Value& options, SampleNotes& notes);

}  // namespace birkhoff::text::chat
