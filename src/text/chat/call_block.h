// The part of an answer that calls tools, parsed as it grows.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "text/chat/answer_parser.h"

namespace birkhoff::text::chat {

enum class Progress : uint8_t { more, done, malformed };

class CallBlock {
 public:
  virtual ~CallBlock() = default;
  virtual const std::string& open() const = 0;
  virtual void reset() = 0;
  // buffer[at..] is the block behind its opening marker, as far as it is known. at moves forward; nothing before it is
  // looked at again. Complete calls are appended to calls and set committed to the end of what they consumed. more: at
  // the end of buffer; done: at stands behind the block; malformed: what is between committed and at is no call.
  virtual Progress advance(const std::string& buffer, size_t& at, size_t& committed, std::vector<ToolCall>& calls) = 0;
  // The buffer lost its first `bytes` bytes.
  virtual void shift(size_t bytes) = 0;
};

std::unique_ptr<CallBlock> dsml_block(const std::string& name);
// fenced: V3's type and ```json fence.
std::unique_ptr<CallBlock> token_block(bool fenced);

}  // namespace birkhoff::text::chat
