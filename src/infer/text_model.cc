#include "infer/text_model.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "checkpoint/model_files.h"
#include "core/error.h"
#include "io/json_file.h"
#include "io/user_files.h"

namespace birkhoff::infer {
namespace {

constexpr int64_t kByteVocabulary = 256;

// eos_token_id of a configuration: a number or a list.
void read_ends(const nlohmann::json& j, std::vector<int32_t>& ends) {
  if (!j.is_object() || !j.contains("eos_token_id")) return;
  const nlohmann::json& v = j.at("eos_token_id");
  for (const nlohmann::json& id : v.is_array() ? v : nlohmann::json::array({v}))
    if (id.is_number_unsigned() && id.get<uint64_t>() <= INT32_MAX) ends.push_back(id.get<int32_t>());
}

// What a file has for a model of bytes (text/tokenizer/gguf_vocabulary.h): the ids of every text are its bytes.
bool is_bytes(const text::Tokenizer& t) {
  if (t.size() != kByteVocabulary || t.bos() || t.eos()) return false;
  for (int32_t id = 0; id < kByteVocabulary; ++id) {
    std::string bytes;
    if (t.is_special(id) || !t.append_bytes(id, bytes) || bytes != std::string(1, static_cast<char>(id))) return false;
  }
  return t.encode("e\xcc\x81").size() == 3;  // which normalisers put together
}

}  // namespace

// What was trained here without a tokenizer was trained on bytes.
bool TextModel::has_text(const Engine& engine) {
  const int64_t vocab = engine.model().config.vocab_size;
  if (engine.directory().empty()) return vocab == kByteVocabulary;  // lent by itself
  return text::Tokenizer::exists(engine.directory()) || vocab == kByteVocabulary ||
         (vocab > kByteVocabulary && checkpoint::read_model_config(engine.directory()).contains("training"));
}

TextModel::TextModel(const Engine& engine) {
  const int64_t vocab = engine.model().config.vocab_size;
  if (!has_text(engine))
    throw Error("tokenizer",
                engine.directory() + ": the model has " + std::to_string(vocab) +
                    " tokens and no tokenizer; only byte models (256 tokens, or trained here) read text without one",
                "put tokenizer.json beside the weights, or use --tokens-file");
  if (!engine.directory().empty() && text::Tokenizer::exists(engine.directory()))
    tokenizer_ = text::Tokenizer::open(engine.directory());
  if (tokenizer_ && is_bytes(*tokenizer_)) tokenizer_ = nullptr;
  if (!tokenizer_) {
    for (int64_t id = kByteVocabulary; id < vocab; ++id) padding_.push_back(static_cast<int32_t>(id));
    return;
  }
  if (tokenizer_->size() > vocab)
    throw Error("tokenizer",
                engine.directory() + ": the tokenizer has ids up to " + std::to_string(tokenizer_->size() - 1) +
                    ", the model's vocabulary is " + std::to_string(vocab),
                "the files of the directory do not belong together");
  for (int32_t id = 0; id < vocab; ++id)
    if (!tokenizer_->token(id)) padding_.push_back(id);
  if (tokenizer_->eos()) ends_.push_back(*tokenizer_->eos());
  if (const std::string path = engine.directory() + "/generation_config.json";
      io::is_directory(engine.directory()) && io::exists(path))
    read_ends(io::read_json(path), ends_);
  read_ends(checkpoint::read_model_config(engine.directory()), ends_);
}

std::vector<int32_t> TextModel::prompt(std::string_view text) const {
  if (!tokenizer_) {
    std::vector<int32_t> ids;
    for (const char c : text.empty() ? std::string_view("\n") : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  std::vector<int32_t> ids = tokenizer_->encode_with_special(text);
  if (ids.empty() && tokenizer_->bos()) ids.push_back(*tokenizer_->bos());
  if (ids.empty()) tokenizer_->encode("\n", ids);
  return ids;
}

bool TextModel::ends(int32_t id) const { return std::find(ends_.begin(), ends_.end(), id) != ends_.end(); }

TextWriter::TextWriter(const TextModel& model, std::span<const int32_t> prompt, bool skip_special)
    : decoder_(model.tokenizer() ? std::make_unique<text::StreamDecoder>(model.tokenizer(), skip_special) : nullptr) {
  if (decoder_) decoder_->follow(prompt);
}

std::string TextWriter::push(int32_t id) {
  return decoder_ ? decoder_->push(id) : std::string(1, static_cast<char>(id));
}
std::string TextWriter::finish() { return decoder_ ? decoder_->finish() : ""; }

}  // namespace birkhoff::infer
