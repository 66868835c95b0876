// The decoders of tokenizer.json: from tokens back to text.
#pragma once
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace birkhoff::text {

class Decoder {
 public:
  virtual ~Decoder() = default;
  // Thread-safe. Throws Error rather than make tokens of more than `limit` bytes together (growth.h).
  virtual void apply(std::vector<std::string>& tokens, size_t limit) const = 0;
};

struct DecoderSteps {
  std::vector<std::unique_ptr<Decoder>> steps;  // in order; the text is what is left, joined
  bool byte_level = false;  // the only step is ByteLevel: every token is a string of bytes, whatever stands beside it
  bool none = true;         // no decoder: tokens are joined with spaces
};
// Throws Error naming an unknown component, field or value.
DecoderSteps read_decoder(const nlohmann::json& entry);

// What ByteLevel makes of one token: its bytes, or the token as it is when a character stands for no byte.
void append_symbol_bytes(std::string_view token, std::string& out);

}  // namespace birkhoff::text
