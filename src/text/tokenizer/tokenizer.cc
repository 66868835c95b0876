#include "text/tokenizer/tokenizer.h"

#include <simdjson.h>

#include <charconv>
#include <filesystem>

#include "core/error.h"
#include "core/exec.h"
#include "io/user_files.h"
#include "text/tokenizer/directory_settings.h"
#include "text/tokenizer/gguf_tokenizer.h"
#include "text/tokenizer/json_tokenizer.h"
#include "text/tokenizer/sentencepiece_tokenizer.h"
#include "text/unicode/utf8.h"

namespace birkhoff::text {

namespace fs = std::filesystem;

void check_text(std::string_view text) {
  if (text.size() >= UINT32_MAX)
    throw Error("tokenizer", std::to_string(text.size()) + " bytes of text, at most " + std::to_string(UINT32_MAX - 1),
                "split it");
  if (simdjson::validate_utf8(text.data(), text.size())) return;
  const size_t at = first_invalid(text);
  char byte[8];
  std::snprintf(byte, sizeof byte, "0x%02X", static_cast<unsigned char>(text[at]));
  throw Error(
      "tokenizer",
      "the text is not UTF-8: byte " + std::to_string(at) + " of " + std::to_string(text.size()) + " is " + byte,
      "convert it to UTF-8 first");
}

bool Tokenizer::exists(const std::string& path) {
  if (io::is_gguf(path)) return has_gguf_tokenizer(io::GgufFile(path));
  return io::is_file(fs::path(path) / "tokenizer.json") || io::is_file(fs::path(path) / "tokenizer.model");
}

std::shared_ptr<const Tokenizer> Tokenizer::open(const std::string& path) {
  if (io::is_directory(path)) {
    const DirectorySettings settings(path);
    const fs::path file = fs::path(path) / "tokenizer.json", model = fs::path(path) / "tokenizer.model";
    if (io::is_file(file)) {
      const auto t = read_tokenizer_json(file.string(), settings.added_tokens());
      settings.apply(*t, false);
      return t;
    }
    if (io::is_file(model)) {
      const auto t = read_sentencepiece_model(model.string(), settings.added_tokens(), settings.space_prefix());
      settings.apply(*t, true);
      return t;
    }
    throw Error("tokenizer", path + ": has neither tokenizer.json nor tokenizer.model",
                "give a model directory with its tokenizer, or one of these files");
  }
  if (io::is_gguf(path)) return read_gguf_tokenizer(io::GgufFile(path));
  if (fs::path(path).extension() == ".model") return read_sentencepiece_model(path, {});
  return read_tokenizer_json(path, {});
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, Added added) const {
  std::vector<int32_t> ids;
  encode(text, ids, added);
  return ids;
}

std::vector<int32_t> Tokenizer::encode_with_special(std::string_view text, Added added) const {
  std::vector<int32_t> ids = before_;
  encode(text, ids, added);
  ids.insert(ids.end(), after_.begin(), after_.end());
  return ids;
}

// Threads here and not in ops: texts are independent of each other, so the result cannot depend on who encodes which.
std::vector<std::vector<int32_t>> Tokenizer::encode_batch(std::span<const std::string_view> texts, int threads,
                                                          Added added) const {
  std::vector<std::vector<int32_t>> out(texts.size());
  Exec(threads).parallel_for(static_cast<int64_t>(texts.size()), [&](int64_t i) {
    encode(texts[static_cast<size_t>(i)], out[static_cast<size_t>(i)], added);
  });
  return out;
}

std::optional<uint8_t> Tokenizer::fallback_byte(int32_t id) const {
  const std::string piece = token(id).value_or("");
  uint8_t value = 0;
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return std::nullopt;
  const auto [end, error] = std::from_chars(piece.data() + 3, piece.data() + 5, value, 16);
  return error == std::errc() && end == piece.data() + 5 ? std::optional(value) : std::nullopt;
}

int32_t Tokenizer::text_bytes(int32_t id) const {
  std::string bytes;
  if (is_special(id)) return 0;
  if (append_bytes(id, bytes)) return static_cast<int32_t>(bytes.size());
  if (fallback_byte(id)) return 1;
  const std::string piece = token(id).value_or("");
  constexpr std::string_view kBlank = "\u2581";  // three bytes that stand for one
  int32_t n = static_cast<int32_t>(piece.size());
  for (size_t at = piece.find(kBlank); at != std::string::npos; at = piece.find(kBlank, at + kBlank.size()))
    n -= static_cast<int32_t>(kBlank.size()) - 1;
  return n;
}

}  // namespace birkhoff::text
