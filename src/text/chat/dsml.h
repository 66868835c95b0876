// What the encoders of V3.2 and V4 share: special tokens, tool calls in DSML, checks of messages.
#pragma once
#include <string>
#include <vector>

#include "text/jinja/masked_text.h"
#include "text/jinja/value.h"

namespace birkhoff::text::chat {

inline constexpr std::string_view kBos = "<｜begin▁of▁sentence｜>", kEos = "<｜end▁of▁sentence｜>";
inline constexpr std::string_view kUser = "<｜User｜>", kAssistant = "<｜Assistant｜>";
inline constexpr std::string_view kThink = "<think>", kEndThink = "</think>";
inline constexpr std::string_view kDsml = "｜DSML｜";

namespace dsml {

[[noreturn]] void refuse(size_t index, const std::string& what, const std::string& hint = "");
// The role of message i. Throws Error when messages is no list of dicts with a role.
const std::string& role_of(const Value& messages, size_t i);
size_t count(const Value& messages);
// Text of a message field: "" for missing or null; parts [{"type": "text", "text"}] are joined by blank lines.
MaskedText text_of(const Value& message, std::string_view key, size_t i);
// The `function` objects of a tools list, one JSON line each.
MaskedText schemas(const Value& tools, size_t i);
// "<｜DSML｜BLOCK>...</｜DSML｜BLOCK>". raw_arguments: arguments that are no JSON become one parameter `arguments` (V4)
// instead of an error (V3.2).
MaskedText calls_block(const Value& tool_calls, std::string_view block, bool raw_arguments, size_t i);
void append_response_format(MaskedText& out, const Value& message);
// Last user or developer message, -1 without one.
int64_t last_question(const std::vector<Value>& messages);
bool is_question(const Value& message);

}  // namespace dsml
}  // namespace birkhoff::text::chat
