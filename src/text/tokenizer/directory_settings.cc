#include "text/tokenizer/directory_settings.h"

#include <algorithm>
#include <filesystem>

#include "core/error.h"
#include "io/json_file.h"
#include "io/user_files.h"
#include "text/tokenizer/vocabulary.h"

namespace birkhoff::text {

using nlohmann::json;
namespace fs = std::filesystem;

namespace {
constexpr char kConfigFile[] = "tokenizer_config.json";

[[noreturn]] void bad(const std::string& field, const std::string& expected) {
  throw Error("tokenizer", std::string(kConfigFile) + ": \"" + field + "\" must be " + expected);
}

bool flag_of(const json& token, const char* name, bool fallback) {
  if (!token.contains(name)) return fallback;
  if (!token.at(name).is_boolean()) bad(name, "true or false");
  return token.at(name).get<bool>();
}

// A token with its flags: "content" and what stands beside it.
AddedToken flagged(const json& token, bool special) {
  AddedToken t;
  t.content = token.at("content").get<std::string>();
  t.single_word = flag_of(token, "single_word", false);
  t.lstrip = flag_of(token, "lstrip", false);
  t.rstrip = flag_of(token, "rstrip", false);
  t.special = special || flag_of(token, "special", false);
  t.normalized = flag_of(token, "normalized", !t.special);
  return t;
}

bool is_token_object(const json& v) { return v.is_object() && v.contains("content") && v.at("content").is_string(); }

// Adds the special token that v is, a text or an object, or those that it holds.
void append_special(const json& v, std::vector<AddedToken>& out) {
  if (v.is_string() || is_token_object(v)) {
    AddedToken t = flagged(v.is_string() ? json::object({{"content", v}}) : v, true);
    const bool known = std::any_of(out.begin(), out.end(), [&](const AddedToken& o) { return o.content == t.content; });
    if (!known && !t.content.empty()) out.push_back(std::move(t));
  } else if (v.is_structured()) {
    for (const json& one : v)
      if (one.is_string() || is_token_object(one)) append_special(one, out);
  }
}
}  // namespace

DirectorySettings::DirectorySettings(const std::string& directory) : directory_(directory) {
  config_ = read(kConfigFile);
  map_ = read("special_tokens_map.json");
  added_ = config_.contains("added_tokens_decoder") ? json::object() : read("added_tokens.json");
  model_ = io::exists(fs::path(directory) / "config.json")
               ? io::read_json((fs::path(directory) / "config.json").string())
               : json::object();
  for (const char* name : {"tokenizer.json", "tokenizer.model", "chat_template.jinja"}) {
    const fs::path p = fs::path(directory) / name;
    if (io::exists(p)) files_.push_back(p.string());
  }
}

json DirectorySettings::read(const std::string& name) {
  const fs::path p = fs::path(directory_) / name;
  if (!io::exists(p)) return json::object();
  json j = io::read_json(p.string());
  if (!j.is_object()) throw Error("tokenizer", p.string() + ": is not a JSON object");
  files_.push_back(p.string());
  return j;
}

std::vector<AddedToken> DirectorySettings::added_tokens() const {
  const std::vector<AddedToken> special = special_tokens();
  std::vector<AddedToken> out = numbered_tokens();
  for (const auto& [content, id] : added_.items()) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > kMaxTokenId)
      throw Error(
          "tokenizer",
          directory_ + "/added_tokens.json: the id of \"" + content.substr(0, 40) + "\" is " + id.dump().substr(0, 40),
          "ids are 0.." + std::to_string(kMaxTokenId));
    AddedToken t;
    t.content = content;
    t.id = id.get<int32_t>();
    t.special = std::any_of(special.begin(), special.end(), [&](const AddedToken& s) { return s.content == content; });
    t.normalized = !t.special;
    out.push_back(std::move(t));
  }
  std::sort(out.begin(), out.end(), [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  out.insert(out.end(), special.begin(), special.end());
  return out;
}

// As transformers reads them: with added_tokens_decoder, special_tokens_map.json has nothing to add.
std::vector<AddedToken> DirectorySettings::special_tokens() const {
  std::vector<AddedToken> out;
  const bool complete = config_.contains("added_tokens_decoder");
  for (const json* j : {&config_, &map_}) {
    if (j == &map_ && complete) break;
    for (const auto& [key, value] : j->items())
      if (key == "additional_special_tokens" || key == "extra_special_tokens" ||
          (key.ends_with("_token") && !value.is_array()))
        append_special(value, out);
  }
  return out;
}

std::vector<AddedToken> DirectorySettings::numbered_tokens() const {
  std::vector<AddedToken> out;
  if (!config_.contains("added_tokens_decoder")) return out;
  const json& tokens = config_.at("added_tokens_decoder");
  if (!tokens.is_object()) bad("added_tokens_decoder", "an object");
  for (const auto& [key, value] : tokens.items()) {
    const bool digits = !key.empty() && key.size() < 9 && key.find_first_not_of("0123456789") == std::string::npos;
    if (!digits || std::stol(key) > kMaxTokenId)
      bad("added_tokens_decoder", "an object whose keys are ids, not \"" + key.substr(0, 40) + "\"");
    if (!is_token_object(value)) bad("added_tokens_decoder " + key, "an object with \"content\"");
    AddedToken t = flagged(value, false);
    t.id = static_cast<int32_t>(std::stol(key));
    out.push_back(std::move(t));
  }
  return out;
}

std::optional<std::string> DirectorySettings::token(const char* name) const {
  for (const json* j : {&config_, &map_}) {
    if (!j->contains(name) || j->at(name).is_null()) continue;
    const json& v = j->at(name);
    if (v.is_string()) return v.get<std::string>();
    if (v.is_object() && v.contains("content") && v.at("content").is_string())
      return v.at("content").get<std::string>();
    bad(name, "a string or an object with \"content\"");
  }
  return std::nullopt;
}

std::optional<bool> DirectorySettings::flag(const char* name) const {
  if (!config_.contains(name) || config_.at(name).is_null()) return std::nullopt;
  if (!config_.at(name).is_boolean()) bad(name, "true or false");
  return config_.at(name).get<bool>();
}

// By the name in the tokenizer's files; else by the id in config.json, the first where it lists several.
std::optional<int32_t> DirectorySettings::find(const Tokenizer& t, const char* token_name, const char* id_name) const {
  if (const std::optional<std::string> name = token(token_name)) {
    const std::optional<int32_t> id = t.id(*name);
    if (!id)
      throw Error("tokenizer",
                  std::string(kConfigFile) + ": " + token_name + " \"" + *name + "\" is not in the vocabulary",
                  "the files of the directory do not belong together");
    return id;
  }
  if (!model_.is_object() || !model_.contains(id_name)) return std::nullopt;
  json v = model_.at(id_name);
  if (v.is_array() && !v.empty()) v = v.front();
  if (!v.is_number_unsigned() || v.get<uint64_t>() >= static_cast<uint64_t>(t.size())) return std::nullopt;
  return v.get<int32_t>();
}

SpacePrefix DirectorySettings::space_prefix() const {
  if (flag("legacy").value_or(true)) return SpacePrefix::always;
  return flag("add_prefix_space").value_or(true) ? SpacePrefix::first : SpacePrefix::never;
}

void DirectorySettings::apply(Tokenizer& t, bool sentencepiece) const {
  t.files_ = files_;
  if (const auto bos = find(t, "bos_token", "bos_token_id")) t.bos_ = bos;
  if (const auto eos = find(t, "eos_token", "eos_token_id")) t.eos_ = eos;
  if (const auto pad = find(t, "pad_token", "pad_token_id")) t.pad_ = pad;
  // Llama's tokenizer class replaces the post-processor and adds BOS by itself.
  const std::string type = config_.contains("tokenizer_class") && config_.at("tokenizer_class").is_string()
                               ? config_.at("tokenizer_class").get<std::string>()
                               : "";
  const bool llama = sentencepiece || type.rfind("LlamaTokenizer", 0) == 0;
  const std::optional<bool> add_bos = flag("add_bos_token"), add_eos = flag("add_eos_token");
  if (!llama && !add_bos && !add_eos) return;
  t.before_.clear();
  t.after_.clear();
  const auto put = [](bool wanted, std::optional<int32_t> id, const char* name, std::vector<int32_t>& list) {
    if (!wanted) return;
    if (!id) throw Error("tokenizer", std::string(kConfigFile) + ": add_" + name + " is set, but there is no " + name);
    list.push_back(*id);
  };
  put(add_bos.value_or(llama && t.bos_), t.bos_, "bos_token", t.before_);
  put(add_eos.value_or(false), t.eos_, "eos_token", t.after_);
}

}  // namespace birkhoff::text
