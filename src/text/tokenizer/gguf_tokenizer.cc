#include "text/tokenizer/gguf_tokenizer.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "text/tokenizer/gguf_splitting.h"
#include "text/tokenizer/gguf_tokens.h"
#include "text/tokenizer/json_tokenizer.h"
#include "text/tokenizer/sentencepiece_tokenizer.h"

namespace birkhoff::text {
namespace {

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
  for (AddedToken& t : tokens.added_tokens()) {
    std::string content = t.content;
    parts.added.add(std::move(t), std::move(content));
  }
  return std::make_shared<JsonTokenizer>(std::move(parts));
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
      t = parse_sentencepiece_model(gguf_sentencepiece_model(f, tokens, prefix), tokens.added_tokens(),
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
