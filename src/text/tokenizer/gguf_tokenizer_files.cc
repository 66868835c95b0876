#include <nlohmann/json.hpp>

#include "core/error.h"
#include "io/atomic_file.h"
#include "io/json_file.h"
#include "text/tokenizer/byte_level_json.h"
#include "text/tokenizer/gguf_splitting.h"
#include "text/tokenizer/gguf_tokenizer.h"
#include "text/tokenizer/gguf_tokens.h"
#include "text/tokenizer/gguf_vocabulary.h"
#include "text/tokenizer/tokenizer.h"

namespace birkhoff::text {
namespace {

using nlohmann::json;

json flags_of(const AddedToken& t) {
  return {{"content", t.content}, {"single_word", false}, {"lstrip", false},
          {"rstrip", false},      {"normalized", false},  {"special", t.special}};
}

// What transformers puts around a text: it reads the template, not add_bos_token.
json post_processor_of(const Tokenizer& t, bool before, bool after) {
  if (!before && !after) return nullptr;
  json single = json::array({{{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}), special = json::object();
  const auto add = [&](int32_t id, bool at_end) {
    const std::string token = *t.token(id);
    const json item = {{"SpecialToken", {{"id", token}, {"type_id", 0}}}};
    single.insert(at_end ? single.end() : single.begin(), item);
    special[token] = {{"id", token}, {"ids", {id}}, {"tokens", {token}}};
  };
  if (before) add(*t.bos(), false);
  if (after) add(*t.eos(), true);
  json pair = single;
  for (json item : single) {
    item.begin().value()["type_id"] = 1;
    if (item.contains("Sequence")) item["Sequence"]["id"] = "B";
    pair.push_back(item);
  }
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", special}};
}

json tokenizer_json(const io::GgufFile& f, json post_processor) {
  const GgufTokens tokens(f);
  const GgufSplitting& splitting = find_gguf_splitting(*f.text("tokenizer.ggml.pre"));
  json vocab = json::object(), merges = json::array(), added = json::array();
  for (size_t i = 0; i < tokens.texts.size(); ++i)
    if (tokens.written(i)) vocab[std::string(tokens.texts[i])] = i;
  for (const auto& [left, right] : read_gguf_merges(f)) merges.push_back(std::string(left) + " " + std::string(right));
  for (const AddedToken& t : tokens.added_tokens()) {
    json entry = flags_of(t);
    entry["id"] = t.id;
    added.push_back(std::move(entry));
  }
  return byte_level_json({std::move(vocab), std::move(merges), std::move(added), splitting.normalizer(),
                          splitting.pre_tokenizer(), std::move(post_processor), splitting.ignore_merges});
}

// tokenizer_config.json without what only one of the two kinds has.
json common_settings(const Tokenizer& t, const ChatTemplates& templates) {
  json j = {{"clean_up_tokenization_spaces", false}};
  const auto name = [&](const char* key, std::optional<int32_t> id) {  // a name makes it a token of its own in a text
    if (id && t.is_special(*id)) j[key] = *t.token(*id);
  };
  name("bos_token", t.bos());
  name("eos_token", t.eos());
  name("pad_token", t.pad());
  if (templates.size() == 1 && templates.contains("default")) {
    j["chat_template"] = templates.at("default");
  } else if (!templates.empty()) {
    j["chat_template"] = json::array();
    for (const auto& [key, source] : templates) j["chat_template"].push_back({{"name", key}, {"template", source}});
  }
  return j;
}

void write_sentencepiece(const io::GgufFile& f, const std::string& directory, json& settings) {
  const GgufTokens tokens(f);
  const bool prefix = f.boolean("tokenizer.ggml.add_space_prefix").value_or(true);
  io::write_file_atomic(directory + "/tokenizer.model", gguf_sentencepiece_model(f, tokens, prefix));
  settings["tokenizer_class"] = "LlamaTokenizer";
  settings["legacy"] = prefix;  // which puts a space before every text; without it add_prefix_space decides
  settings["add_prefix_space"] = prefix;
  settings["added_tokens_decoder"] = json::object();
  for (const AddedToken& t : tokens.added_tokens())
    settings["added_tokens_decoder"][std::to_string(t.id)] = flags_of(t);
}

}  // namespace

bool write_gguf_tokenizer(const io::GgufFile& f, const std::string& directory, const ChatTemplates& templates) {
  if (!has_gguf_tokenizer(f)) return false;
  const std::shared_ptr<const Tokenizer> t = read_gguf_tokenizer(f);
  const bool before = !t->before().empty(), after = t->encode_with_special("").size() > t->before().size();
  json settings = common_settings(*t, templates);
  settings["add_bos_token"] = before;
  settings["add_eos_token"] = after;
  if (const auto whole = f.text("tokenizer.huggingface.json")) {
    io::write_file_atomic(directory + "/tokenizer.json", *whole);
  } else if (f.text("tokenizer.ggml.model") == "llama") {
    write_sentencepiece(f, directory, settings);
  } else {
    const json file = tokenizer_json(f, post_processor_of(*t, before, after));
    io::write_file_atomic(directory + "/tokenizer.json", file.dump());
    settings["tokenizer_class"] = "PreTrainedTokenizerFast";
  }
  io::write_json(directory + "/tokenizer_config.json", settings);
  return true;
}

}  // namespace birkhoff::text
