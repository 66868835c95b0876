// tokenizer.json to a JsonTokenizer. The two large tables are walked in the parsed document without a copy; the small
// components go through the JSON library of the rest of the program.
#include <simdjson.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "io/mapped_file.h"
#include "io/user_files.h"
#include "text/tokenizer/growth.h"
#include "text/tokenizer/json_tokenizer.h"

namespace birkhoff::text {
namespace {

namespace dom = simdjson::dom;
constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxFileBytes = size_t{512} << 20;

[[noreturn]] void fail(const std::string& what, const std::string& hint = "") { throw Error("tokenizer", what, hint); }

// nullptr-like element when absent or null.
bool find(dom::object o, const char* key, dom::element& out) {
  return o.at_key(key).get(out) == simdjson::SUCCESS && !out.is_null();
}

nlohmann::json component(dom::object root, const char* key) {
  dom::element e;
  if (!find(root, key, e)) return nullptr;
  return nlohmann::json::parse(simdjson::minify(e));
}

bool flag(dom::object o, const char* key, const char* where) {
  dom::element e;
  bool value = false;
  if (find(o, key, e) && e.get(value) != simdjson::SUCCESS)
    fail(std::string(where) + ": \"" + key + "\" must be true or false");
  return value;
}

std::string text(dom::object o, const char* key, const char* where) {
  dom::element e;
  std::string_view value;
  if (find(o, key, e) && e.get(value) != simdjson::SUCCESS)
    fail(std::string(where) + ": \"" + key + "\" must be a string");
  return std::string(value);
}

Vocabulary read_vocabulary(dom::object model) {
  dom::object entries;
  if (model["vocab"].get(entries) != simdjson::SUCCESS) fail("model: \"vocab\" must be an object of tokens and ids");
  Vocabulary v;
  size_t count = 0, bytes = 0;
  for (const auto& e : entries) {
    ++count;
    bytes += e.key.size();
  }
  v.reserve(count, bytes);
  for (const auto& e : entries) {
    int64_t id = -1;
    if (e.value.get(id) != simdjson::SUCCESS)
      fail("model vocab: the id of \"" + std::string(e.key.substr(0, 60)) + "\" is not an integer");
    v.add(e.key, id);
  }
  return v;
}

using Merges = std::vector<std::pair<std::string_view, std::string_view>>;

std::pair<std::string_view, std::string_view> read_merge(dom::element e, size_t rank) {
  std::string_view line;
  if (e.get(line) == simdjson::SUCCESS) {
    const size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos)
      fail("model merges: entry " + std::to_string(rank) + " is not two tokens with a space between: \"" +
           std::string(line.substr(0, 60)) + "\"");
    return {line.substr(0, space), line.substr(space + 1)};
  }
  dom::array pair;
  std::string_view left, right;
  if (e.get(pair) != simdjson::SUCCESS || pair.size() != 2 || pair.at(0).get(left) != simdjson::SUCCESS ||
      pair.at(1).get(right) != simdjson::SUCCESS)
    fail("model merges: entry " + std::to_string(rank) + " is neither a string nor a pair of strings");
  return {left, right};
}

Merges read_merges(dom::object model) {
  dom::array list;
  if (model["merges"].get(list) != simdjson::SUCCESS) fail("model: \"merges\" must be a list");
  Merges merges;
  merges.reserve(list.size());
  for (const dom::element e : list) {
    std::string_view line;
    if (e.get(line) == simdjson::SUCCESS && line.rfind("#version", 0) == 0) continue;
    merges.push_back(read_merge(e, merges.size()));
  }
  return merges;
}

std::unique_ptr<Bpe> read_model(dom::object root, bool byte_level) {
  dom::object model;
  if (root["model"].get(model) != simdjson::SUCCESS) fail("\"model\" must be an object", "is this a tokenizer.json?");
  const std::string type = text(model, "type", "model");
  if (!type.empty() && type != "BPE")
    fail("model type \"" + type + "\" is not known", "known: BPE; SentencePiece models are read from tokenizer.model");
  BpeOptions o;
  dom::element e;
  if (find(model, "dropout", e)) {
    double p = 1;
    if (e.get(p) != simdjson::SUCCESS || p != 0)
      fail("model: dropout is set, which makes encoding random", "set \"dropout\" to null");
  }
  if (find(model, "unk_token", e)) o.unk_token = text(model, "unk_token", "model");
  o.continuing_subword_prefix = text(model, "continuing_subword_prefix", "model");
  o.end_of_word_suffix = text(model, "end_of_word_suffix", "model");
  o.fuse_unk = flag(model, "fuse_unk", "model");
  o.byte_fallback = flag(model, "byte_fallback", "model");
  o.ignore_merges = flag(model, "ignore_merges", "model");
  return std::make_unique<Bpe>(read_vocabulary(model), read_merges(model), std::move(o), byte_level);
}

AddedToken read_added(dom::element e) {
  dom::object o;
  AddedToken t;
  std::string_view content;
  int64_t id = -1;
  if (e.get(o) != simdjson::SUCCESS || o["content"].get(content) != simdjson::SUCCESS ||
      o["id"].get(id) != simdjson::SUCCESS || id < 0 || id > kMaxTokenId)
    fail("added_tokens: an entry is not an object with \"content\" and an \"id\" within 0.." +
         std::to_string(kMaxTokenId));
  t.content = content;
  t.id = static_cast<int32_t>(id);
  t.single_word = flag(o, "single_word", "added_tokens");
  t.lstrip = flag(o, "lstrip", "added_tokens");
  t.rstrip = flag(o, "rstrip", "added_tokens");
  t.special = flag(o, "special", "added_tokens");
  dom::element n;
  t.normalized = find(o, "normalized", n) ? flag(o, "normalized", "added_tokens") : !t.special;
  return t;
}

// The reference library numbers added tokens itself: an entry of the vocabulary keeps its id, others follow behind the
// largest. A file that says something else would be read differently by different programs.
void add_token(AddedToken t, JsonTokenizer::Parts& parts) {
  if (t.content.empty()) return;
  const Vocabulary& v = parts.model->vocabulary();
  int32_t id = parts.added.find(t.content);
  if (id < 0) id = v.find(t.content);
  if (id < 0) id = std::max(parts.added.end(), v.count());
  if (id != t.id)
    fail("added token \"" + t.content.substr(0, 60) + "\" has id " + std::to_string(t.id) +
             ", its place in the file is that of id " + std::to_string(id),
         "ids of added tokens must follow the vocabulary without a gap");
  std::string normalized = t.content;
  constexpr size_t kFloor = 4096;  // of one token, of which a file has many
  apply_all(parts.normalizers, normalized, output_limit(t.content.size(), kFloor));
  parts.added.add(std::move(t), std::move(normalized));
}

std::shared_ptr<JsonTokenizer> build(dom::object root, const std::vector<AddedToken>& more) {
  const std::string version = text(root, "version", "tokenizer.json");
  if (!version.empty() && version != "1.0") fail("version \"" + version + "\" is not known", "known: 1.0");
  JsonTokenizer::Parts parts;
  parts.normalizers = read_normalizer(component(root, "normalizer"));
  parts.pre_tokenizer = read_pre_tokenizer(component(root, "pre_tokenizer"));
  parts.decoder = read_decoder(component(root, "decoder"));
  parts.affixes = read_post_processor(component(root, "post_processor"));
  parts.model = read_model(root, parts.pre_tokenizer.byte_level);
  dom::element e;
  if (find(root, "added_tokens", e)) {
    dom::array list;
    if (e.get(list) != simdjson::SUCCESS) fail("\"added_tokens\" must be a list");
    for (const dom::element t : list) add_token(read_added(t), parts);
  }
  for (AddedToken t : more) {
    const bool by_name = t.id < 0;
    if (by_name) t.id = parts.model->vocabulary().find(t.content);
    if (by_name ? t.id >= 0 && parts.added.find(t.content) < 0 : parts.added.find(t.content) != t.id)
      add_token(std::move(t), parts);
  }
  return std::make_shared<JsonTokenizer>(std::move(parts));
}

}  // namespace

std::shared_ptr<JsonTokenizer> parse_tokenizer_json(std::string_view text, const std::vector<AddedToken>& more) {
  text = io::without_mark(text);
  if (text.size() > kMaxFileBytes)
    fail(std::to_string(text.size()) + " bytes, at most " + std::to_string(kMaxFileBytes) + " are read");
  dom::parser parser;
  if (parser.allocate(text.size(), kMaxDepth) != simdjson::SUCCESS)
    fail("not enough memory to read " + std::to_string(text.size()) + " bytes");
  const simdjson::padded_string padded(text);
  dom::object root;
  const simdjson::error_code error = parser.parse(padded).get(root);
  if (error)
    fail(std::string("not a JSON object: ") + simdjson::error_message(error),
         "the file is damaged, or not a tokenizer.text");
  return build(root, more);
}

std::shared_ptr<JsonTokenizer> read_tokenizer_json(const std::string& path, const std::vector<AddedToken>& more) {
  const io::MappedFile file(path);
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  return about_file(path, [&] { return parse_tokenizer_json(text, more); });
}

}  // namespace birkhoff::text
