// Tokenizers between model directories and the metadata of GGUF files.
#pragma once
#include <cstdint>
#include <map>
#include <string>

#include "io/gguf_writer.h"

namespace birkhoff::text {

using ChatTemplates = std::map<std::string, std::string>;  // of chat::template_sources

// Appends the keys that describe the tokenizer and the chat templates of a model directory, with `rows` tokens, those
// without text as unused padding. Without tokenizer files: bytes (where bytes_are_tokens), as a vocabulary of 256
// letters that no merge joins, else model "none", for programs that read and write ids. Throws Error: a tokenizer that
// GGUF has no name for, or one with more tokens than rows.
void put_gguf_tokenizer(io::GgufMetadata& m, const std::string& directory, int64_t rows, bool bytes_are_tokens,
                        const ChatTemplates& templates);

// The way back: tokenizer.json (byte-level) or tokenizer.model (SentencePiece) with tokenizer_config.json, into an
// existing directory. False, and nothing is written, of a file without a tokenizer. Throws Error.
bool write_gguf_tokenizer(const io::GgufFile& f, const std::string& directory, const ChatTemplates& templates);

}  // namespace birkhoff::text
