#include "text/tokenizer/gguf_tokenizer.h"

#include <simdjson.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "core/error.h"
#include "text/tokenizer/gguf_splitting.h"
#include "text/tokenizer/json_tokenizer.h"
#include "text/tokenizer/sentencepiece_tokenizer.h"

namespace birkhoff::text {
namespace {

// tokenizer.ggml.token_type, the numbers of SentencePiece.
enum GgufTokenType : uint64_t {
  kIsNormal = 1,
  kIsUnknown = 2,
  kIsControl = 3,
  kIsUserDefined = 4,
  kIsUnused = 5,
  kIsByte = 6
};

struct GgufTokens {
  std::vector<std::string_view> texts;
  std::vector<uint64_t> types;
  std::unordered_set<size_t> unwritten;

  explicit GgufTokens(const io::GgufFile& f) {
    auto list = f.texts("tokenizer.ggml.tokens");
    if (!list) f.fail("tokenizer.ggml.tokens is missing");
    texts = std::move(*list);
    if (texts.empty() || texts.size() > static_cast<size_t>(kMaxTokenId))
      f.fail("tokenizer.ggml.tokens has " + std::to_string(texts.size()) + " entries");
    types = f.naturals("tokenizer.ggml.token_type").value_or(std::vector<uint64_t>(texts.size(), kIsNormal));
    if (types.size() != texts.size())
      f.fail("tokenizer.ggml.token_type has " + std::to_string(types.size()) + " entries, tokenizer.ggml.tokens " +
             std::to_string(texts.size()));
    std::unordered_set<std::string_view> seen;
    seen.reserve(texts.size());
    for (size_t i = 0; i < texts.size(); ++i) {
      if (types[i] < kIsNormal || types[i] > kIsByte)
        f.fail("tokenizer.ggml.token_type of token " + std::to_string(i) + " is " + std::to_string(types[i]));
      // What no text can be: nothing is encoded as it.
      if (texts[i].empty() || texts[i].size() > 4096 || texts[i].find('\0') != std::string_view::npos ||
          !simdjson::validate_utf8(texts[i].data(), texts[i].size()) || !seen.insert(texts[i]).second)
        unwritten.insert(i);
    }
  }
  bool written(size_t i) const { return types[i] != kIsUnused && !unwritten.contains(i); }
  bool added(size_t i) const { return written(i) && (types[i] == kIsControl || types[i] == kIsUserDefined); }
};

std::vector<AddedToken> added_tokens(const GgufTokens& tokens) {
  std::vector<AddedToken> list;
  for (size_t i = 0; i < tokens.texts.size(); ++i) {
    if (!tokens.added(i)) continue;
    AddedToken t;
    t.id = static_cast<int32_t>(i);
    t.content = tokens.texts[i];
    t.special = tokens.types[i] == kIsControl;
    t.normalized = false;
    list.push_back(std::move(t));
  }
  return list;
}

std::vector<std::pair<std::string_view, std::string_view>> read_gguf_merges(const io::GgufFile& f) {
  std::vector<std::pair<std::string_view, std::string_view>> merges;
  const auto lines = f.texts("tokenizer.ggml.merges");
  if (!lines) f.fail("tokenizer.ggml.merges is missing");
  for (const std::string_view line : *lines) {
    const size_t space = line.find(' ', 1);
    if (line.size() < 3 || space == std::string_view::npos || space + 1 == line.size())
      f.fail("tokenizer.ggml.merges: entry " + std::to_string(merges.size()) +
             " is not two tokens with a space between");
    merges.emplace_back(line.substr(0, space), line.substr(space + 1));
  }
  return merges;
}

std::shared_ptr<Tokenizer> read_byte_level(const io::GgufFile& f, const GgufTokens& tokens,
                                           const GgufSplitting& splitting) {
  Vocabulary v;
  size_t bytes = 0;
  for (const std::string_view t : tokens.texts) bytes += t.size();
  v.reserve(tokens.texts.size(), bytes);
  for (size_t i = 0; i < tokens.texts.size(); ++i)
    if (tokens.written(i)) v.add(tokens.texts[i], static_cast<int64_t>(i));
  BpeOptions options;
  options.ignore_merges = splitting.ignore_merges;
  JsonTokenizer::Parts parts;
  parts.normalizers = read_normalizer(splitting.normalizer());
  parts.pre_tokenizer = read_pre_tokenizer(splitting.pre_tokenizer());
  parts.decoder = read_decoder({{"type", "ByteLevel"}});
  parts.model = std::make_unique<Bpe>(std::move(v), read_gguf_merges(f), std::move(options), true);
  for (AddedToken& t : added_tokens(tokens)) {
    std::string content = t.content;
    parts.added.add(std::move(t), std::move(content));
  }
  return std::make_shared<JsonTokenizer>(std::move(parts));
}

// A serialised ModelProto (sentencepiece_model.proto).
class ModelProto {
 public:
  void varint(int field, uint64_t v) {
    number(static_cast<uint64_t>(field) << 3);
    number(v);
  }
  void bytes(int field, std::string_view v) {
    number(static_cast<uint64_t>(field) << 3 | 2);
    number(v.size());
    out_ += v;
  }
  void fixed32(int field, float v) {
    number(static_cast<uint64_t>(field) << 3 | 5);
    out_.append(reinterpret_cast<const char*>(&v), sizeof v);
  }
  const std::string& text() const { return out_; }
  void clear() { out_.clear(); }

 private:
  void number(uint64_t v) {
    for (; v >= 128; v >>= 7) out_ += static_cast<char>(v | 128);
    out_ += static_cast<char>(v);
  }
  std::string out_;
};

std::string sentencepiece_model(const io::GgufFile& f, const GgufTokens& tokens, bool prefix) {
  constexpr int kPieceField = 1, kTrainerField = 2, kNormalizerField = 3;
  const auto scores = f.numbers("tokenizer.ggml.scores");
  if (!scores) f.fail("tokenizer.ggml.scores is missing");
  if (scores->size() != tokens.texts.size())
    f.fail("tokenizer.ggml.scores has " + std::to_string(scores->size()) + " entries, tokenizer.ggml.tokens " +
           std::to_string(tokens.texts.size()));
  ModelProto model, part;
  bool bytes = false;
  for (size_t i = 0; i < tokens.texts.size(); ++i) {
    part.clear();
    // A piece must be text of its own; nothing is encoded as an unused one.
    const bool written = tokens.written(i);
    part.bytes(1, written ? std::string(tokens.texts[i]) : "\uFFFDunused" + std::to_string(i));
    part.fixed32(2, static_cast<float>((*scores)[i]));
    part.varint(3, written || tokens.types[i] == kIsUnknown ? tokens.types[i] : kIsUnused);
    bytes |= tokens.types[i] == kIsByte;
    model.bytes(kPieceField, part.text());
  }
  part.clear();
  part.varint(3, 2);  // model_type BPE
  part.varint(35, bytes);
  model.bytes(kTrainerField, part.text());
  part.clear();
  part.varint(3, prefix);  // add_dummy_prefix
  part.varint(4, 0);       // remove_extra_whitespaces
  part.varint(5, 1);       // escape_whitespaces
  model.bytes(kNormalizerField, part.text());
  return model.text();
}

}  // namespace

// Sets what the file says of the tokens around a text.
class GgufSettings {
 public:
  GgufSettings(const io::GgufFile& f, Tokenizer& t) : f_(f), t_(t) {}
  void apply(bool adds_bos) {
    t_.bos_ = id("bos");
    t_.eos_ = id("eos");
    t_.pad_ = id("padding");
    t_.before_.clear();
    t_.after_.clear();
    put("add_bos_token", adds_bos && t_.bos_, t_.bos_, t_.before_);
    put("add_eos_token", false, t_.eos_, t_.after_);
  }

 private:
  std::optional<int32_t> id(const std::string& name) const {
    const std::string key = "tokenizer.ggml." + name + "_token_id";
    const auto n = f_.natural(key);
    if (n && *n >= static_cast<uint64_t>(t_.size()))
      f_.fail(key + " is " + std::to_string(*n) + ", the vocabulary has " + std::to_string(t_.size()) + " tokens");
    return n ? std::optional<int32_t>(static_cast<int32_t>(*n)) : std::nullopt;
  }
  void put(const std::string& name, bool otherwise, std::optional<int32_t> id, std::vector<int32_t>& list) const {
    const std::string key = "tokenizer.ggml." + name;
    if (!f_.boolean(key).value_or(otherwise)) return;
    if (!id) f_.fail(key + " is set, but there is no such token");
    list.push_back(*id);
  }
  const io::GgufFile& f_;
  Tokenizer& t_;
};

bool has_gguf_tokenizer(const io::GgufFile& f) {
  return f.value("tokenizer.huggingface.json") || (f.value("tokenizer.ggml.model") && f.value("tokenizer.ggml.tokens"));
}

std::shared_ptr<const Tokenizer> read_gguf_tokenizer(const io::GgufFile& f) {
  std::shared_ptr<Tokenizer> t;
  const std::string_view model = f.text("tokenizer.ggml.model").value_or("");
  bool adds_bos = model == "llama";
  about_file(f.path(), [&] {
    if (const auto whole = f.text("tokenizer.huggingface.json")) {
      t = parse_tokenizer_json(*whole, {});
    } else if (model == "gpt2") {
      const auto pre = f.text("tokenizer.ggml.pre");
      if (!pre)
        throw Error("tokenizer", "tokenizer.ggml.pre is missing", "a file of an early converter: convert again");
      const GgufSplitting& splitting = find_gguf_splitting(*pre);
      adds_bos = splitting.adds_bos;
      t = read_byte_level(f, GgufTokens(f), splitting);
    } else if (model == "llama") {
      const GgufTokens tokens(f);
      const bool prefix = f.boolean("tokenizer.ggml.add_space_prefix").value_or(true);
      t = parse_sentencepiece_model(sentencepiece_model(f, tokens, prefix), added_tokens(tokens),
                                    prefix ? SpacePrefix::always : SpacePrefix::never);
    } else {
      throw Error("tokenizer", "tokenizer.ggml.model is \"" + std::string(model.substr(0, 60)) + "\"",
                  "known: gpt2, llama; or use --tokens-file");
    }
  });
  GgufSettings(f, *t).apply(adds_bos);
  return t;
}

}  // namespace birkhoff::text
