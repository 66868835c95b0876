// What a model wrote -> content, reasoning, tool calls. Fed in pieces of any size, in time linear in the text; text is
// never lost: what is no well-formed call stays content, letter by letter.
//
//   V3, R1  <think>...</think>content<｜tool▁calls▁begin｜>
//           <｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\n```json\nARGUMENTS\n```<｜tool▁call▁end｜>...
//           <｜tool▁calls▁end｜>
//   V3.1    the same tokens around NAME<｜tool▁sep｜>ARGUMENTS
//   V3.2    \n\n<｜DSML｜function_calls> with invoke and parameter elements;  V4  \n\n<｜DSML｜tool_calls>
//
// A leading <think> is optional (generation prompts often end with it), so are the blank line before a DSML block and
// the end-of-sentence token. Rules of DSML: encoding_dsv32.py, encoding_dsv4.py.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/value.h"

namespace birkhoff::text::chat {

struct ToolCall {
  std::string name;
  std::string arguments;  // JSON text as the model wrote it; for DSML, an object put together from the parameters
  bool operator==(const ToolCall&) const = default;
};

struct Answer {
  std::string content, reasoning;
  std::vector<ToolCall> calls;
  // {"role": "assistant", "content", "reasoning_content", "tool_calls": [{"type": "function", "function": {"name",
  // "arguments"}}]}
  Value to_message() const;
  // The same as it goes into a history, where templates test for what is there: without empty keys, content null when
  // calls are all of it (V3's template writes no calls beside a text). object_arguments
  // (ChatFormat::takes_object_arguments): arguments as objects, where they are the text of one.
  Value to_history(bool object_arguments) const;
};

class CallBlock;

class AnswerParser {
 public:
  // family: "v3", "v3.1", "v3.2", "v4", or "" for answers without markup of calls. thinking: the prompt ended inside a
  // thought, so text before </think> is reasoning even without <think>. Throws Error: unknown family.
  AnswerParser(const std::string& family, bool thinking);
  ~AnswerParser();
  AnswerParser(AnswerParser&&) noexcept;

  // What the piece added; both may hold text back until they know what it is. finish() gives out the rest and ends the
  // answer.
  Answer feed(std::string_view piece);
  Answer finish();
  // All of it so far.
  const Answer& answer() const { return all_; }

 private:
  enum class State : uint8_t { start, reasoning, content, block };
  void run(bool last);
  bool step(bool last);
  bool start(bool last);
  bool text(bool last);
  bool block(bool last);
  void emit(std::string_view text);
  size_t held_back(std::string_view rest) const;
  void drop_consumed();

  std::unique_ptr<CallBlock> block_;  // null: no markup of calls
  bool thinking_, blank_line_;
  State state_ = State::start;
  std::string buffer_;
  size_t at_ = 0;        // everything before it is done with
  size_t scanned_ = 0;   // no marker begins before it
  size_t block_at_ = 0;  // where parsing of the open block stands
  Answer all_, delta_;
};

// options: thinking_mode "thinking" or "chat", or thinking / enable_thinking as booleans. Throws Error for wrong
// values.
bool thinking_of(const Value& options);

}  // namespace birkhoff::text::chat
