// Chat templates: an interpreter of the Jinja that they are written in, within limits. Output is that of Jinja2's
// ImmutableSandboxedEnvironment with trim_blocks and lstrip_blocks, the loop controls and the tojson, raise_exception
// and strftime_now of transformers. No file, no clock but strftime_now, no attribute that begins with two underscores,
// no mutation of what the caller passed in.
#pragma once
#include <cstdint>
#include <ctime>
#include <memory>
#include <string_view>

#include "text/jinja/masked_text.h"
#include "text/jinja/value.h"

namespace birkhoff::text::chat::jinja {

struct Limits {
  int64_t steps = 10'000'000;      // nodes evaluated, elements made, and one for every 64 bytes copied
  int64_t output_bytes = 8 << 20;  // of the text, and of any string on the way
  int64_t live_bytes = 32 << 20;   // of strings and containers that are alive
  int64_t range = 100'000;         // elements of one range()
  int depth = 400;                 // of evaluation: nesting and recursion of macros and loops
};

struct Tree;

class Template {
 public:
  // Throws Error: syntax, with the line.
  explicit Template(std::string_view source);
  ~Template();
  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;

  // Variables of the template by name. Throws Error: what the template raises (raise_exception), use of undefined
  // values, wrong types, a limit. now: what strftime_now sees. Thread-safe.
  MaskedText render(const DictObject& context, const Limits& limits = {}, std::time_t now = std::time(nullptr)) const;

 private:
  std::unique_ptr<Tree> tree_;
};

}  // namespace birkhoff::text::chat::jinja
