// The pipeline of tokenizer.json: added tokens, normalizer, pre-tokenizer, BPE; and the decoder for the way back.
#pragma once
#include <memory>
#include <mutex>

#include "text/tokenizer/added_tokens.h"
#include "text/tokenizer/bpe.h"
#include "text/tokenizer/decoder.h"
#include "text/tokenizer/normalizer.h"
#include "text/tokenizer/post_processor.h"
#include "text/tokenizer/pre_tokenizer.h"
#include "text/tokenizer/tokenizer.h"

namespace birkhoff::text {

class JsonTokenizer final : public Tokenizer {
 public:
  struct Parts {
    std::vector<std::unique_ptr<Normalizer>> normalizers;
    PreTokenizerStages pre_tokenizer;
    std::unique_ptr<Bpe> model;
    AddedTokens added;
    DecoderSteps decoder;
    Affixes affixes;
  };
  explicit JsonTokenizer(Parts parts);

  using Tokenizer::encode;
  void encode(std::string_view text, std::vector<int32_t>& ids, Added added = Added::match) const override;
  void encode_parts(std::span<const Part> parts, std::vector<int32_t>& ids) const override;
  std::string decode(std::span<const int32_t> ids, bool skip_special = false) const override;
  bool append_bytes(int32_t id, std::string& bytes) const override;
  int32_t size() const override;
  std::optional<std::string> token(int32_t id) const override;
  std::optional<int32_t> id(std::string_view token) const override;
  bool is_special(int32_t id) const override;

 private:
  struct Scratch {
    Pieces pieces;
    BpeScratch bpe;
    std::vector<AddedTokens::Found> raw, normalized;
    size_t writable = 0;  // what normalizers may still write for the text at hand (growth.h)
  };
  class Lease;
  std::string_view token_view(int32_t id) const;  // as decoders take it; data() is nullptr for an id without a token
  void encode_segment(std::string_view segment, bool at_start, AddedScope scope, Scratch& s,
                      std::vector<int32_t>& ids) const;
  void encode_model(std::string_view text, bool at_start, Scratch& s, std::vector<int32_t>& ids) const;

  Parts p_;
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Scratch>> free_;  // one for every thread that encodes at the same time
};

// Reads a tokenizer.json. more: what the directory adds to its added tokens; id -1: the vocabulary's, nothing when it
// has none. Throws Error with the file's name.
std::shared_ptr<JsonTokenizer> read_tokenizer_json(const std::string& path, const std::vector<AddedToken>& more);
std::shared_ptr<JsonTokenizer> parse_tokenizer_json(std::string_view text, const std::vector<AddedToken>& more);

}  // namespace birkhoff::text
