// Prompts of DeepSeek-V3.2 and DeepSeek-V4, whose repositories hold an encoder and no template. Every rule is that of
// encoding/encoding_dsv32.py and encoding/encoding_dsv4.py (models.md J.4); text from messages and tools is marked as
// content.
#pragma once
#include "text/jinja/masked_text.h"
#include "text/jinja/value.h"

namespace birkhoff::text::chat {

struct EncoderOptions {
  bool thinking = false;      // thinking_mode "thinking", or "chat"
  bool drop_thinking = true;  // forget the reasoning of turns before the last question
  bool bos = true;            // add_default_bos_token
  bool max_effort = false;    // V4: reasoning_effort "max"; "high" writes nothing
};
// Keys: thinking_mode, or thinking / enable_thinking as booleans; drop_thinking, reasoning_effort,
// add_default_bos_token, add_generation_prompt (true: these formats always end with it). Throws Error for others and
// for wrong values.
EncoderOptions read_encoder_options(const Value& options, bool v4);

// messages: a list of dicts, marked (chat_format.h); tools stand in the message that introduces them. Both throw Error
// with the number of the message: unknown role, a result without a call, an empty developer message, arguments that are
// not JSON (V3.2).
MaskedText encode_v3_2(const Value& messages, const EncoderOptions& options);
MaskedText encode_v4(const Value& messages, const EncoderOptions& options);

}  // namespace birkhoff::text::chat
