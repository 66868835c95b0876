// How a model's conversations become prompts: the directory's own template, or the encoder of a family that has none.
#pragma once
#include <map>
#include <memory>
#include <string>

#include "text/jinja/jinja.h"
#include "text/jinja/masked_text.h"
#include "text/jinja/value.h"

namespace birkhoff::text::chat {

// Strings of messages (or tools) with their characters marked as content. The role of a message is the template's
// affair
// ('<|' + role + '|>') and stays unmarked as long as it is a plain word.
Value mark_content(const Value& messages);

class ChatFormat {
 public:
  enum class Encoder : uint8_t { none, v3_2, v4 };

  // "v3.2" or "v4". Throws Error.
  static ChatFormat native(const std::string& name);
  // One template file; BOS and EOS are DeepSeek's.
  static ChatFormat from_template(std::string_view source);
  // The encoder that config.json names as chat_encoder; else chat_template.jinja and additional_chat_templates/*.jinja;
  // else chat_template of tokenizer_config.json (text, or a list of named ones); else the encoder of config.json's
  // model_type. Special tokens are those of tokenizer_config.json, else of special_tokens_map.json. template_file,
  // unless empty: instead of the directory's own. Of a GGUF file: tokenizer.chat_template and
  // tokenizer.chat_template.NAME, else the encoder of its architecture. Throws Error: none of these.
  static ChatFormat open(const std::string& directory, const std::string& template_file = "");
  // "v3.2", "v4", or "" for a model_type whose conversations have templates.
  static std::string encoder_of_type(const std::string& model_type);

  // messages, tools: as JSON has them (json_value.h), unmarked. tools may be undefined or null. options: an object of
  // template variables (add_generation_prompt, thinking, ...; chat_template chooses a named one) or of the encoder's
  // options. Throws Error. Thread-safe.
  MaskedText render(const Value& messages, const Value& tools, const Value& options) const;

  // Does the format want the arguments of calls as objects, because it writes them with tojson? DeepSeek's own take
  // JSON text. Found by rendering a call, so a template that refuses such a conversation says false.
  bool takes_object_arguments() const;

  Encoder encoder() const { return encoder_; }
  // Text that ends a turn: the encoder's or tokenizer_config.json's eos_token; may be empty.
  const std::string& eos() const { return eos_; }
  // What parses answers: "v3", "v3.1", "v3.2", "v4", or "" for a template of no known family, whose answers are content
  // alone.
  const std::string& parser() const { return parser_; }

 private:
  static ChatFormat open_gguf(const std::string& path, const std::string& template_file);
  // Templates by name, of `file`; without any the encoder of the type. Throws Error when that has none.
  void take_templates(const std::map<std::string, std::string>& sources, const std::string& file,
                      const std::string& model_path, const std::string& model_type);
  const jinja::Template& choose(const Value& tools, const Value& options) const;
  MaskedText render_template(const Value& messages, const Value& tools, const Value& options) const;

  Encoder encoder_ = Encoder::none;
  std::map<std::string, std::shared_ptr<const jinja::Template>> templates_;
  std::map<std::string, std::string> special_tokens_;  // bos_token, eos_token, ...
  std::string eos_, parser_;
};

// Options with which a prompt that an answer follows is rendered: a generation prompt, with a thought or without.
Value prompt_options(const ChatFormat& format, bool thinking);
// Did the prompt end inside a thought?
bool opens_thought(std::string_view prompt);

// The Jinja sources of a model directory or a GGUF file by name, "default" the usual one. Throws Error.
std::map<std::string, std::string> template_sources(const std::string& path);

}  // namespace birkhoff::text::chat
