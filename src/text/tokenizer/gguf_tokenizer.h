// The tokenizer in the metadata of a GGUF file: byte-level BPE (tokenizer.ggml.model "gpt2") or SentencePiece
// ("llama").
#pragma once
#include <memory>
#include <string>

#include "io/gguf.h"
#include "text/tokenizer/tokenizer.h"

namespace birkhoff::text {

bool has_gguf_tokenizer(const io::GgufFile& f);  // no: none, or one of another kind
// Throws Error naming the file and the key: no vocabulary, an unknown model or pre-tokenizer, arrays that contradict
// each other.
std::shared_ptr<const Tokenizer> read_gguf_tokenizer(const io::GgufFile& f);

}  // namespace birkhoff::text
