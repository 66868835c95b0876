#include "text/tokenizer/gguf_vocabulary.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "io/json_file.h"
#include "io/mapped_file.h"
#include "io/user_files.h"
#include "text/tokenizer/byte_symbols.h"
#include "text/tokenizer/directory_settings.h"
#include "text/tokenizer/gguf_splitting.h"
#include "text/tokenizer/gguf_tokens.h"
#include "text/tokenizer/sentencepiece_tokenizer.h"

namespace birkhoff::text {
namespace {

using nlohmann::json;

constexpr float kPaddingScore = -1000;  // as llama.cpp's converter has it
constexpr size_t kMaxJsonBytes = size_t{512} << 20;

struct Listed {
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  std::vector<float> scores;  // of SentencePiece

  explicit Listed(int64_t rows) : types(static_cast<size_t>(rows), kIsUnused), scores(types.size(), kPaddingScore) {
    for (int64_t i = 0; i < rows; ++i) tokens.push_back("[PAD" + std::to_string(i) + "]");
  }
  void put(io::GgufMetadata& m) const {
    m.put("tokenizer.ggml.tokens", tokens);
    m.put("tokenizer.ggml.token_type", types);
  }
};

// Ids of tokens that are cut out of a text, whether special or not.
std::set<int32_t> added_ids(const Tokenizer& t, const json& file, const DirectorySettings& settings) {
  std::set<int32_t> ids;
  for (const json& a : file.value("added_tokens", json::array())) ids.insert(a.value("id", -1));
  for (const AddedToken& a : settings.added_tokens())
    if (const auto id = a.id >= 0 ? std::optional(a.id) : t.id(a.content)) ids.insert(*id);
  return ids;
}

void put_special_ids(io::GgufMetadata& m, const std::string& directory, const Tokenizer& t) {
  const auto put = [&](const std::string& name, int32_t id) {
    m.put("tokenizer.ggml." + name + "_token_id", static_cast<uint32_t>(id));
  };
  if (t.bos()) put("bos", *t.bos());
  if (t.pad()) put("padding", *t.pad());
  std::vector<int32_t> ends;  // of an answer
  const auto add = [&](const json& id) {
    if (id.is_number_integer() && id >= 0 && id < t.size() && std::find(ends.begin(), ends.end(), id) == ends.end())
      ends.push_back(id);
  };
  if (t.eos()) add(*t.eos());
  for (const char* name : {"/generation_config.json", "/config.json"}) {
    if (!io::exists(directory + name)) continue;
    const json ids = io::read_json(directory + name).value("eos_token_id", json());
    for (const json& id : ids.is_array() ? ids : json::array({ids})) add(id);
  }
  const char* names[] = {"eos", "eot", "eom"};
  for (size_t i = 0; i < std::min(ends.size(), std::size(names)); ++i) put(names[i], ends[i]);
  m.put("tokenizer.ggml.add_bos_token",
        t.bos() && std::find(t.before().begin(), t.before().end(), *t.bos()) != t.before().end());
  m.put("tokenizer.ggml.add_eos_token", t.encode_with_special("").size() > t.before().size());
}

void put_templates(io::GgufMetadata& m, const ChatTemplates& templates) {
  std::vector<std::string> names;
  for (const auto& [name, source] : templates) {
    if (name == "default") {
      m.put("tokenizer.chat_template", source);
      continue;
    }
    names.push_back(name);
    m.put("tokenizer.chat_template." + name, source);
  }
  if (!names.empty()) m.put("tokenizer.chat_templates", names);
}

void put_byte_level(io::GgufMetadata& m, const std::string& directory, const Tokenizer& t, const json& file,
                    Listed& list) {
  const std::string pre = gguf_splitting_name(file), path = directory + "/tokenizer.json";
  if (pre.empty())
    throw Error("tokenizer", path + ": GGUF has no name for the way it splits text",
                "known are the splittings of docs/gguf.md; without the file the model is written for ids alone");
  const std::set<int32_t> added = added_ids(t, file, DirectorySettings(directory));
  for (const auto& [token, id] : file["model"]["vocab"].items()) {
    list.tokens[id.get<size_t>()] = token;
    list.types[id.get<size_t>()] = kIsNormal;
  }
  for (const int32_t id : added) {
    if (id < 0) continue;
    list.tokens[static_cast<size_t>(id)] = *t.token(id);
    list.types[static_cast<size_t>(id)] = t.is_special(id) ? kIsControl : kIsUserDefined;
  }
  m.put("tokenizer.ggml.model", "gpt2");
  m.put("tokenizer.ggml.pre", pre);
  list.put(m);
  std::vector<std::string> merges;
  for (const json& pair : file["model"]["merges"])
    merges.push_back(pair.is_string() ? pair.get<std::string>()
                                      : pair[0].get<std::string>() + " " + pair[1].get<std::string>());
  m.put("tokenizer.ggml.merges", merges);
}

void put_sentencepiece(io::GgufMetadata& m, const std::string& directory, const Tokenizer& t, Listed& list) {
  const io::MappedFile file(directory + "/tokenizer.model");
  const DirectorySettings settings(directory);
  size_t i = 0;
  for (const SentencePiece& p :
       sentencepiece_pieces({reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()})) {
    list.tokens[i] = p.text;
    list.types[i] = p.type;
    list.scores[i++] = p.score;
  }
  for (const int32_t id : added_ids(t, json::object(), settings)) {
    if (static_cast<size_t>(id) < i) continue;
    list.tokens[static_cast<size_t>(id)] = *t.token(id);
    list.types[static_cast<size_t>(id)] = t.is_special(id) ? kIsControl : kIsUserDefined;
  }
  m.put("tokenizer.ggml.model", "llama");
  m.put("tokenizer.ggml.pre", "default");
  list.put(m);
  m.put("tokenizer.ggml.scores", list.scores);
  m.put("tokenizer.ggml.add_space_prefix", settings.space_prefix() != SpacePrefix::never);
}

// Bytes as tokens: a vocabulary of their letters, in the order of the bytes.
void put_bytes(io::GgufMetadata& m, Listed& list) {
  for (size_t b = 0; b < std::min<size_t>(256, list.tokens.size()); ++b) {
    list.tokens[b] = to_symbols(std::string(1, static_cast<char>(b)));
    list.types[b] = kIsNormal;
  }
  m.put("tokenizer.ggml.model", "gpt2");
  m.put("tokenizer.ggml.pre", "gpt-2");
  list.put(m);
  m.put("tokenizer.ggml.merges", std::vector<std::string>());
  m.put("tokenizer.ggml.add_bos_token", false);
}

// A tokenizer.json whose tokens are bytes; others are SentencePiece models in another spelling.
bool is_byte_level(const json& file) {
  const json model = file.value("model", json::object());
  return !model.value("byte_fallback", false) && model.value("type", "BPE") == "BPE";
}

}  // namespace

void put_gguf_tokenizer(io::GgufMetadata& m, const std::string& directory, int64_t rows, bool bytes_are_tokens,
                        const ChatTemplates& templates) {
  Listed list(rows);
  if (!Tokenizer::exists(directory)) {
    if (bytes_are_tokens) return put_bytes(m, list);
    return m.put("tokenizer.ggml.model", "none");
  }
  const std::shared_ptr<const Tokenizer> t = Tokenizer::open(directory);
  if (t->size() > rows)
    throw Error("tokenizer",
                directory + ": the tokenizer has ids up to " + std::to_string(t->size() - 1) +
                    ", the model's vocabulary is " + std::to_string(rows),
                "the files of the directory do not belong together");
  const std::string path = directory + "/tokenizer.json";
  const json file = io::exists(path) ? json::parse(io::without_mark(io::read_file(path, kMaxJsonBytes))) : json();
  if (!file.is_null() && is_byte_level(file))
    put_byte_level(m, directory, *t, file, list);
  else if (io::exists(directory + "/tokenizer.model"))
    put_sentencepiece(m, directory, *t, list);
  else
    throw Error("tokenizer", path + ": is a SentencePiece model in another spelling, whose scores it does not hold",
                "put the tokenizer.model that it was made from beside it");
  put_special_ids(m, directory, *t);
  put_templates(m, templates);
}

}  // namespace birkhoff::text
