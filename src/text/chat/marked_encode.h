// A rendered prompt to token ids: added tokens match in what the format wrote, never in contents; everything between
// two of them is encoded as one text, so that words run across the border of format and content as they did in
// training.
#pragma once
#include <cstdint>
#include <vector>

#include "text/jinja/masked_text.h"
#include "text/tokenizer/tokenizer.h"

namespace birkhoff::text::chat {

std::vector<int32_t> encode_marked(const Tokenizer& tokenizer, const MaskedText& prompt);

}  // namespace birkhoff::text::chat
