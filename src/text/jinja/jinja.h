// Templates: an interpreter of Jinja within limits. Output is that of Jinja2's ImmutableSandboxedEnvironment, with the
// loop controls and the tojson, raise_exception and strftime_now of transformers. No file, no clock but strftime_now,
// no attribute that begins with two underscores, no mutation of what the caller passed in.
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

// The environment of a template. chat: transformers' for conversations, with trim_blocks and lstrip_blocks; what is
// undefined prints as nothing. task: lm-evaluation-harness' for documents; white space stays as it is written, a line
// break at the end too, use of what is undefined is an error, and regex_replace and regex_search are filters.
enum class Dialect : uint8_t { chat, task };

struct Tree;

class Template {
 public:
  // Throws Error: syntax, with the line.
  explicit Template(std::string_view source, Dialect dialect = Dialect::chat);
  ~Template();
  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;

  // Variables of the template by name. Throws Error: what the template raises (raise_exception), use of undefined
  // values, wrong types, a limit. now: what strftime_now sees. Thread-safe.
  MaskedText render(const DictObject& context, const Limits& limits = {}, std::time_t now = std::time(nullptr)) const;

 private:
  std::unique_ptr<Tree> tree_;
};

// One expression, as between {{ and }}.
class Expression {
 public:
  // Throws Error: syntax; more or less than one expression.
  explicit Expression(std::string_view source, Dialect dialect = Dialect::chat);
  ~Expression();
  Expression(Expression&&) noexcept;
  Expression& operator=(Expression&&) noexcept;

  // What it stands for: never undefined, and data alone, no function or loop. Throws Error as Template::render.
  // Thread-safe.
  Value evaluate(const DictObject& context, const Limits& limits = {}, std::time_t now = std::time(nullptr)) const;

 private:
  std::unique_ptr<Tree> tree_;
};

}  // namespace birkhoff::text::chat::jinja
