#include "text/tokenizer/gguf_tokens.h"

#include <simdjson.h>

#include "text/tokenizer/vocabulary.h"

namespace birkhoff::text {
namespace {

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

}  // namespace

GgufTokens::GgufTokens(const io::GgufFile& f) {
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
std::vector<AddedToken> GgufTokens::added_tokens() const {
  std::vector<AddedToken> list;
  for (size_t i = 0; i < texts.size(); ++i) {
    if (!added(i)) continue;
    AddedToken t;
    t.id = static_cast<int32_t>(i);
    t.content = texts[i];
    t.special = types[i] == kIsControl;
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

std::string gguf_sentencepiece_model(const io::GgufFile& f, const GgufTokens& tokens, bool prefix) {
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

}  // namespace birkhoff::text
