// tokenizer.model: byte-pair encoding with byte fallback by the SentencePiece library, as Llama 2 and Mixtral have it.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer/added_tokens.h"
#include "text/tokenizer/tokenizer.h"

namespace birkhoff::text {

// Where a space is put before text that begins without one. always: where text begins, also behind an added token, as
// SentencePiece does; first: at the beginning alone; never. The latter two are Llama's tokenizer class of transformers
// with "legacy": false, which also leaves the normalizer out and takes one space off the decoded text (never: none).
enum class SpacePrefix { always, first, never };

// added: tokens that the directory's other files name; they are cut out of raw text. Without them nothing in a text
// becomes a control token, as in SentencePiece itself. Throws Error naming the file and what is wrong with it.
std::shared_ptr<Tokenizer> read_sentencepiece_model(const std::string& path, const std::vector<AddedToken>& added,
                                                    SpacePrefix prefix = SpacePrefix::always);
std::shared_ptr<Tokenizer> parse_sentencepiece_model(std::string_view bytes, const std::vector<AddedToken>& added,
                                                     SpacePrefix prefix = SpacePrefix::always);

// Everything that the library believes without a look: the wire format of the messages it reads, unique pieces that are
// text, known types, one unknown piece, all byte pieces, a character map whose jumps stay inside it. Throws Error.
void check_sentencepiece_model(std::string_view bytes);

struct SentencePiece {
  std::string_view text;  // in the model's bytes
  float score = 0;
  int32_t type = 1;  // normal 1, unknown 2, control 3, user defined 4, unused 5, byte 6
};
// By id. Throws Error as check_sentencepiece_model.
std::vector<SentencePiece> sentencepiece_pieces(std::string_view bytes);

}  // namespace birkhoff::text
