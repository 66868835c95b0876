#include "text/chat/chat_format.h"

#include <algorithm>
#include <filesystem>

#include "core/error.h"
#include "io/gguf.h"
#include "io/user_files.h"
#include "text/chat/dsml.h"
#include "text/chat/encoder.h"
#include "text/jinja/json_value.h"

namespace birkhoff::text::chat {
namespace {

namespace fs = std::filesystem;
constexpr size_t kMaxFile = size_t{16} << 20;

std::string read_file(const fs::path& path) { return io::read_file(path.string(), kMaxFile); }

bool plain_word(const std::string& s) {
  return !s.empty() && s.size() < 64 &&
         std::all_of(s.begin(), s.end(), [](unsigned char c) { return std::isalnum(c) || c == '_'; });
}

Value marked(const Value& v, bool is_message) {
  switch (v.kind()) {
    case Kind::string:
      return Value::string(v.bytes(), true);
    case Kind::list:
    case Kind::tuple: {
      std::vector<Value> items;
      for (const Value& item : v.items()) items.push_back(marked(item, false));
      return Value::list(std::move(items));
    }
    case Kind::dict: {
      auto dict = std::make_shared<DictObject>();
      for (const auto& [key, value] : v.as_dict().entries) {
        const bool role = is_message && key.bytes() == "role" && value.is(Kind::string) && plain_word(value.bytes());
        dict->set(key.is(Kind::string) ? Value::string(key.bytes(), true) : key, role ? value : marked(value, false));
      }
      return Value::dict(std::move(dict));
    }
    default:
      return v;
  }
}

// Answers of a template are recognised by the tokens it writes around calls.
std::string guess_parser(const std::string& source) {
  const auto has = [&](std::string_view s) { return source.find(s) != std::string::npos; };
  if (has("DSML") && has("tool_calls>")) return "v4";
  if (has("DSML")) return "v3.2";
  if (has("<｜tool▁sep｜>")) return has("```json") ? "v3" : "v3.1";
  return has("</think>") ? "v3" : "";
}

using Sources = std::map<std::string, std::string>;  // templates by name

// The object in a file; undefined when there is none.
Value read_object(const fs::path& path) {
  if (!io::exists(path)) return {};
  Value object = about_file(path, [&] { return parse_json(read_file(path)); });
  if (!object.is(Kind::dict)) throw Error("chat", path.string() + ": not a JSON object");
  return object;
}

// bos_token, eos_token and the like of an object; those that tokens has already stay.
void add_special_tokens(const Value& object, std::map<std::string, std::string>& tokens) {
  if (!object.is(Kind::dict)) return;
  for (const auto& [key, value] : object.as_dict().entries) {
    const Value token = value.is(Kind::dict) ? get(value, "content") : value;
    if (key.bytes().ends_with("_token") && !key.bytes().starts_with("add_") && token.is(Kind::string))
      tokens.emplace(key.bytes(), token.bytes());
  }
}

// The templates of a tokenizer_config.json.
Sources read_config_templates(const Value& config, const fs::path& path) {
  Sources sources;
  const Value chat = get(config, "chat_template");
  if (chat.is(Kind::string)) sources["default"] = chat.bytes();
  if (!chat.is_sequence()) return sources;
  for (const Value& named : chat.items()) {
    const Value name = get(named, "name"), source = get(named, "template");
    if (!name.is(Kind::string) || !source.is(Kind::string))
      throw Error("chat", path.string() + ": an entry of chat_template has no name or no template");
    sources[name.bytes()] = source.bytes();
  }
  return sources;
}

// Templates in files of their own stand in the place of those of tokenizer_config.json, as in transformers.
Sources read_template_files(const fs::path& dir) {
  Sources sources;
  if (const fs::path path = dir / "chat_template.jinja"; io::exists(path)) sources["default"] = read_file(path);
  if (const fs::path folder = dir / "additional_chat_templates"; io::is_directory(folder))
    for (const fs::path name : io::list_directory(folder))
      if (name.extension() == ".jinja") sources[name.stem().string()] = read_file(folder / name);
  return sources;
}

// The templates of a GGUF file.
Sources read_gguf_templates(const io::GgufFile& f) {
  Sources sources;
  constexpr std::string_view kTemplate = "tokenizer.chat_template";
  for (const io::GgufValue& v : f.values()) {
    if (v.type != io::GgufValueType::string) continue;
    if (v.key == kTemplate) sources["default"] = *f.text(v.key);
    if (v.key.starts_with(kTemplate) && v.key.size() > kTemplate.size() + 1 && v.key[kTemplate.size()] == '.')
      sources[std::string(v.key.substr(kTemplate.size() + 1))] = *f.text(v.key);
  }
  return sources;
}

Sources read_directory_templates(const fs::path& dir, const Value& config) {
  Sources own = read_template_files(dir);
  return own.empty() ? read_config_templates(config, dir / "tokenizer_config.json") : own;
}

}  // namespace

Sources template_sources(const std::string& path) {
  if (io::is_gguf(path)) return read_gguf_templates(io::GgufFile(path));
  return read_directory_templates(path, read_object(fs::path(path) / "tokenizer_config.json"));
}

Value mark_content(const Value& messages) {
  if (!messages.is_sequence()) return marked(messages, false);
  std::vector<Value> out;
  for (const Value& message : messages.items()) out.push_back(marked(message, true));
  return Value::list(std::move(out));
}

ChatFormat ChatFormat::native(const std::string& name) {
  if (name != "v3.2" && name != "v4")
    throw Error("chat", "no encoder named '" + name + "'", "there are v3.2 and v4", ExitCode::usage);
  ChatFormat out;
  out.encoder_ = name == "v4" ? Encoder::v4 : Encoder::v3_2;
  out.eos_ = kEos;
  out.parser_ = name;
  return out;
}

ChatFormat ChatFormat::from_template(std::string_view source) {
  ChatFormat out;
  out.templates_["default"] = std::make_shared<const jinja::Template>(source);
  out.special_tokens_ = {{"bos_token", std::string(kBos)}, {"eos_token", std::string(kEos)}};
  out.eos_ = kEos;
  out.parser_ = guess_parser(std::string(source));
  return out;
}

std::string ChatFormat::encoder_of_type(const std::string& model_type) {
  // A table of its own, not a member of model's types: text stands below model and formats are opened without one.
  static constexpr std::pair<const char*, const char*> kEncoders[] = {{"deepseek_v32", "v3.2"}, {"deepseek_v4", "v4"}};
  for (const auto& [type, encoder] : kEncoders)
    if (model_type == type) return encoder;
  return "";
}

// Templates and the names of special tokens of a GGUF file.
ChatFormat ChatFormat::open_gguf(const std::string& path, const std::string& template_file) {
  const io::GgufFile f(path);
  ChatFormat out;
  if (const auto tokens = f.texts("tokenizer.ggml.tokens"))
    for (const char* name : {"bos", "eos", "unknown", "padding"}) {
      const auto id = f.natural(std::string("tokenizer.ggml.") + name + "_token_id");
      const std::string_view word = name;
      const std::string key = word == "unknown"   ? "unk_token"
                              : word == "padding" ? "pad_token"
                                                  : name + std::string("_token");
      if (id && *id < tokens->size()) out.special_tokens_[key] = (*tokens)[*id];
    }
  const Sources sources =
      template_file.empty() ? read_gguf_templates(f) : Sources{{"default", read_file(template_file)}};
  const std::string_view a = f.text("general.architecture").value_or("");
  const std::string type = a == "deepseek32" ? "deepseek_v32" : a == "deepseek4" ? "deepseek_v4" : std::string(a);
  out.take_templates(sources, template_file.empty() ? path : template_file, path, type);
  return out;
}

ChatFormat ChatFormat::open(const std::string& directory, const std::string& template_file) {
  if (io::is_gguf(directory)) return open_gguf(directory, template_file);
  const fs::path dir(directory), config_path = dir / "config.json";
  const Value config =
      io::exists(config_path) ? about_file(config_path, [&] { return parse_json(read_file(config_path)); }) : Value();
  const Value encoder = get(config, "chat_encoder"), type = get(config, "model_type");
  if (template_file.empty() && encoder.is(Kind::string))
    return about_file(config_path, [&] { return native(encoder.bytes()); });
  ChatFormat out;
  const Value tokenizer = read_object(dir / "tokenizer_config.json");
  add_special_tokens(tokenizer, out.special_tokens_);
  add_special_tokens(read_object(dir / "special_tokens_map.json"), out.special_tokens_);
  const Sources sources =
      template_file.empty() ? read_directory_templates(dir, tokenizer) : Sources{{"default", read_file(template_file)}};
  out.take_templates(sources, template_file.empty() ? directory : template_file, directory,
                     type.is(Kind::string) ? type.bytes() : "");
  return out;
}

void ChatFormat::take_templates(const std::map<std::string, std::string>& sources, const std::string& file,
                                const std::string& model_path, const std::string& model_type) {
  for (const auto& [name, source] : sources)
    templates_[name] = about_file(file, [&text = source] { return std::make_shared<const jinja::Template>(text); });
  eos_ = special_tokens_["eos_token"];
  if (!sources.empty()) {
    const auto usual = sources.find("default");
    parser_ = guess_parser(usual != sources.end() ? usual->second : sources.begin()->second);
    return;
  }
  if (const std::string name = encoder_of_type(model_type); !name.empty())
    *this = native(name);
  else
    throw Error("chat",
                model_path + ": no chat template, and model_type '" + model_type + "' has no encoder of its own",
                "put a chat_template.jinja into the directory, or give --template FILE or --encoder v3.2|v4");
}

const jinja::Template& ChatFormat::choose(const Value& tools, const Value& options) const {
  std::string name = "default";
  if (const Value chosen = get(options, "chat_template"); chosen.is(Kind::string))
    name = chosen.bytes();
  else if (truth(tools) && templates_.count("tool_use"))
    name = "tool_use";
  const auto it = templates_.find(name);
  if (it != templates_.end()) return *it->second;
  std::string names;
  for (const auto& [known, t] : templates_) names += (names.empty() ? "" : ", ") + known;
  throw Error("chat", "no chat template named '" + name.substr(0, 80) + "'", "there are: " + names);
}

MaskedText ChatFormat::render_template(const Value& messages, const Value& tools, const Value& options) const {
  DictObject context;
  for (const auto& [name, token] : special_tokens_) context.set(name, Value::string(token));
  context.set("documents", Value::none());
  context.set("add_generation_prompt", Value::boolean(false));
  if (options.is(Kind::dict))
    for (const auto& [key, value] : options.as_dict().entries)
      if (key.bytes() != "chat_template") context.set(key.bytes(), value);
  context.set("messages", mark_content(messages));
  context.set("tools", truth(tools) ? mark_content(tools) : Value::none());
  return choose(tools, options).render(context);
}

MaskedText ChatFormat::render(const Value& messages, const Value& tools, const Value& options) const {
  if (!messages.is_sequence()) throw Error("chat", std::string("messages must be a list, not ") + type_name(messages));
  if (!tools.is(Kind::undefined) && !tools.is(Kind::none) && !tools.is_sequence())
    throw Error("chat", std::string("tools must be a list, not ") + type_name(tools));
  if (!options.is(Kind::undefined) && !options.is(Kind::none) && !options.is(Kind::dict))
    throw Error("chat", std::string("options must be an object, not ") + type_name(options));
  if (encoder_ == Encoder::none) return render_template(messages, tools, options);
  Value all = messages;
  if (truth(tools)) {  // the encoders expect tools in the first message
    std::vector<Value> items = messages.items();
    const Value role = items.empty() ? Value() : get(items[0], "role");
    auto first = std::make_shared<DictObject>();
    if (role.is(Kind::string) && (role.bytes() == "system" || role.bytes() == "developer")) {
      for (const auto& [key, value] : items[0].as_dict().entries) first->set(key, value);
      items.erase(items.begin());
    } else {
      first->set("role", Value::string("system"));
      first->set("content", Value::string(""));
    }
    first->set("tools", tools);
    items.insert(items.begin(), Value::dict(std::move(first)));
    all = Value::list(std::move(items));
  }
  const EncoderOptions encoder_options = read_encoder_options(options, encoder_ == Encoder::v4);
  return encoder_ == Encoder::v4 ? encode_v4(mark_content(all), encoder_options)
                                 : encode_v3_2(mark_content(all), encoder_options);
}

bool ChatFormat::takes_object_arguments() const {
  if (encoder_ != Encoder::none) return false;
  const auto rendered = [this](const std::string& arguments) -> std::string {
    const Value messages = parse_json(
        R"([{"role": "user", "content": "q"}, {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function",
      "function": {"name": "f", "arguments": )" +
        arguments + "}}]}]");
    try {
      return render(messages, {}, {}).bytes();
    } catch (const Error&) {
      return "";
    }
  };
  const std::string with_text = rendered(R"("{\"birkhoff\": 1}")");
  if (with_text.empty()) return !rendered(R"({"birkhoff": 1})").empty();
  return with_text.find(R"(\"birkhoff\")") != std::string::npos;  // quoted once more
}

Value prompt_options(const ChatFormat& format, bool thinking) {
  auto options = std::make_shared<DictObject>();
  options->set("add_generation_prompt", Value::boolean(true));
  if (format.encoder() == ChatFormat::Encoder::none) options->set("enable_thinking", Value::boolean(thinking));
  options->set("thinking", Value::boolean(thinking));
  return Value::dict(std::move(options));
}

bool opens_thought(std::string_view prompt) {
  const size_t end = prompt.find_last_not_of(" \n");
  return end != std::string::npos && prompt.substr(0, end + 1).ends_with(kThink);
}

}  // namespace birkhoff::text::chat
