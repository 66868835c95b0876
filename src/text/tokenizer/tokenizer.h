// Text to token ids and back, as the directory of a model says: tokenizer.json (byte-level and character BPE) or
// tokenizer.model (SentencePiece), or as the metadata of a GGUF file. Ids equal those of the reference libraries,
// `tokenizers` and `sentencepiece`.
//
// All functions of Tokenizer are thread-safe. Text must be UTF-8: anything else is an Error with the byte's place, as
// the reference libraries refuse it; text of 4 GiB and more is refused.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace birkhoff::text {

class Tokenizer {
 public:
  // match: added tokens in the text are tokens, as in the reference library; for raw text and for the marks of a chat
  // format. plain: they are plain text, for what people and tools wrote into a conversation; only added tokens of a
  // single character stay tokens, because they are letters of the alphabet (see AddedScope).
  enum class Added { match, plain };

  // A directory with tokenizer.json (preferred) or tokenizer.model, beside them tokenizer_config.json; or one of the
  // two files, whose neighbour tokenizer_config.json is not read; or a GGUF file. Throws Error: missing, damaged, an
  // unknown component.
  static std::shared_ptr<const Tokenizer> open(const std::string& path);
  static bool exists(const std::string& path);  // in a directory, or in a GGUF file
  virtual ~Tokenizer() = default;

  // Appends the ids of text; no token is put around it.
  virtual void encode(std::string_view text, std::vector<int32_t>& ids, Added added = Added::match) const = 0;
  std::vector<int32_t> encode(std::string_view text, Added added = Added::match) const;
  // One text in parts, each with its own rule for added tokens: a token is found within one part alone. What lies
  // between two tokens is encoded as one text, so that words run across the borders of parts.
  struct Part {
    std::string_view text;
    Added added = Added::match;
  };
  virtual void encode_parts(std::span<const Part> parts, std::vector<int32_t>& ids) const = 0;
  // With the tokens that the model expects around a text (add_bos_token and add_eos_token of tokenizer_config.json,
  // else the post-processor).
  std::vector<int32_t> encode_with_special(std::string_view text, Added added = Added::match) const;
  // One list a text, in order, on up to `threads` threads.
  std::vector<std::vector<int32_t>> encode_batch(std::span<const std::string_view> texts, int threads,
                                                 Added added = Added::match) const;

  // Ids without a token (padding rows of a vocabulary) are passed over; bytes that are not UTF-8 become U+FFFD.
  // skip_special leaves special tokens out.
  virtual std::string decode(std::span<const int32_t> ids, bool skip_special = false) const = 0;
  // Appends the bytes of one id where tokens are bytes (byte-level decoders); false where a token's text depends on its
  // neighbours.
  virtual bool append_bytes(int32_t id, std::string& bytes) const = 0;

  virtual int32_t size() const = 0;  // largest id + 1
  virtual std::optional<std::string> token(
      int32_t id) const = 0;  // as decoders take it; nothing for an id without a token
  virtual std::optional<int32_t> id(std::string_view token) const = 0;
  virtual bool is_special(int32_t id) const = 0;

  std::optional<int32_t> bos() const { return bos_; }
  std::optional<int32_t> eos() const { return eos_; }
  std::optional<int32_t> pad() const { return pad_; }
  std::span<const int32_t> before() const { return before_; }  // what encode_with_special puts before a text
  // The byte that a token "<0xHH>" of a vocabulary with byte fallback stands for.
  std::optional<uint8_t> fallback_byte(int32_t id) const;
  // Bytes of text that an id stands for within a text: 0 for special tokens and ids without a token.
  int32_t text_bytes(int32_t id) const;
  // The files of the directory that make up the tokenizer, to be copied into a checkpoint.
  const std::vector<std::string>& files() const { return files_; }

 protected:
  friend class DirectorySettings;
  friend class GgufSettings;
  std::optional<int32_t> bos_, eos_, pad_;
  std::vector<int32_t> before_, after_;  // of encode_with_special
  std::vector<std::string> files_;
};

// Ids one at a time to text that is complete: no character is ever cut. What the pushes and finish() return, joined, is
// decode() of all ids, but for invalid bytes of SentencePiece, where a later byte can spoil what was complete before.
class StreamDecoder {
 public:
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special = false)
      : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {}
  // The ids before the first push, already written: their text is not repeated, but what follows depends on it (a space
  // between words).
  void follow(std::span<const int32_t> ids);
  std::string push(int32_t id);
  std::string finish();  // what is left; bytes that never became a character as U+FFFD

 private:
  std::string push_window(int32_t id);
  bool in_character() const;
  std::string open_text() const;
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool skip_special_;
  std::string bytes_;                    // byte-level: the beginning of a character
  std::vector<int32_t> context_, open_;  // otherwise: the ids before, and those not yet written
};

// Throws Error when text is not UTF-8 or too long.
void check_text(std::string_view text);

}  // namespace birkhoff::text
