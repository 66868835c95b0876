#include "core/error.h"
#include "text/chat/dsml.h"
#include "text/chat/encoder.h"
#include "text/jinja/python_print.h"

namespace birkhoff::text::chat {
namespace {

// The text that introduces tools, up to the schemas and behind them.
constexpr std::string_view kV32ToolsHead =
    "## Tools\n\n"
    "You have access to a set of tools you can use to answer the user's question.\n"
    "You can invoke functions by writing a \"<｜DSML｜function_calls>\" block like the following as part of your reply "
    "to the user:\n"
    "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"$FUNCTION_NAME\">\n"
    "<｜DSML｜parameter name=\"$PARAMETER_NAME\" string=\"true|false\">$PARAMETER_VALUE</｜DSML｜parameter>\n...\n"
    "</｜DSML｜invoke>\n<｜DSML｜invoke "
    "name=\"$FUNCTION_NAME2\">\n...\n</｜DSML｜invoke>\n</｜DSML｜function_calls>\n\n"
    "String and scalar parameters should be specified as is without any escaping or quotes, while lists and objects "
    "should use JSON "
    "format. The \"string\" attribute should be set to \"true\" for string type parameters and \"false\" for other "
    "types (numbers, "
    "booleans, arrays, objects).\n\n"
    "If the thinking_mode is enabled, then after function results you should strongly consider outputting a thinking "
    "block. Here is "
    "an example:\n\n"
    "<｜DSML｜function_calls>\n...\n</｜DSML｜function_calls>\n\n<function_results>\n...\n</function_results>\n\n"
    "<think>...thinking about results</think>\n\n"
    "Here are the functions available in JSONSchema format:\n<functions>\n";
constexpr std::string_view kV32ToolsTail = "\n</functions>\n";

class V32Writer {
 public:
  V32Writer(std::vector<Value> messages, const EncoderOptions& options)
      : messages_(std::move(messages)),
        list_(Value::list(messages_)),
        last_(dsml::last_question(messages_)),
        thinking_(options.thinking) {}

  void write(size_t i, MaskedText& out) {
    const std::string& role = dsml::role_of(list_, i);
    const Value& message = messages_[i];
    if (role == "system") {
      out.append(dsml::text_of(message, "content", i));
      append_tools(message, i, out);
      dsml::append_response_format(out, message);
    } else if (role == "developer") {
      const MaskedText content = dsml::text_of(message, "content", i);
      if (content.empty()) dsml::refuse(i, "a developer message without content");
      out.append(kUser);
      append_tools(message, i, out);
      dsml::append_response_format(out, message);
      out.append("\n\n# The user's message is: ");
      out.append(content);
      open_answer(i, out);
    } else if (role == "user") {
      out.append(kUser);
      out.append(printed(message, i));
      open_answer(i, out);
    } else if (role == "tool") {
      write_result(i, out);
    } else if (role == "assistant") {
      write_assistant(i, out);
    } else {
      dsml::refuse(i, "unknown role '" + role.substr(0, 40) + "'",
                   "V3.2 knows system, developer, user, assistant and tool");
    }
  }

 private:
  // The reference formats the value, so that a missing content reads None.
  static MaskedText printed(const Value& message, size_t i) {
    const Value content = get(message, "content");
    return content.is(Kind::none) || content.is(Kind::undefined) ? MaskedText("None")
                                                                 : dsml::text_of(message, "content", i);
  }

  static void append_tools(const Value& message, size_t i, MaskedText& out) {
    const Value tools = get(message, "tools");
    if (!truth(tools)) return;
    out.append("\n\n");
    out.append(kV32ToolsHead);
    out.append(dsml::schemas(tools, i));
    out.append(kV32ToolsTail);
  }

  void open_answer(size_t i, MaskedText& out) const {
    out.append(kAssistant);
    out.append(thinking_ && static_cast<int64_t>(i) == last_ ? kThink : kEndThink);
  }

  void write_result(size_t i, MaskedText& out) {
    if (i == 0 || messages_[i - 1].ref() != last_result_) {  // the first result behind an assistant message
      caller_ = static_cast<int64_t>(i) - 1;
      while (caller_ >= 0 && dsml::role_of(list_, static_cast<size_t>(caller_)) == "tool") --caller_;
    }
    last_result_ = messages_[i].ref();
    const Value calls = caller_ >= 0 && dsml::role_of(list_, static_cast<size_t>(caller_)) == "assistant"
                            ? get(messages_[static_cast<size_t>(caller_)], "tool_calls")
                            : Value();
    const size_t order = i - static_cast<size_t>(caller_ < 0 ? 0 : caller_),
                 count = calls.is_sequence() ? calls.items().size() : 0;
    if (caller_ < 0 || order > count)
      dsml::refuse(i,
                   "a tool result, but the assistant message before it has " + std::to_string(count) + " tool calls");
    if (order == 1) out.append("\n\n<function_results>");
    out.append("\n<result>");
    out.append(printed(messages_[i], i));
    out.append("</result>");
    if (order != count) return;
    out.append("\n</function_results>\n\n");
    out.append(thinking_ && static_cast<int64_t>(i) >= last_ ? kThink : kEndThink);
  }

  void write_assistant(size_t i, MaskedText& out) const {
    const Value& message = messages_[i];
    const Value calls = get(message, "tool_calls");
    if (thinking_ && static_cast<int64_t>(i) > last_) {
      const MaskedText reasoning = dsml::text_of(message, "reasoning_content", i);
      if (reasoning.empty() && !truth(calls))
        dsml::refuse(i, "an answer behind the last question has neither reasoning_content nor tool_calls",
                     "thinking mode needs one of them; use thinking_mode chat");
      out.append(reasoning);
      out.append(kEndThink);
    }
    out.append(dsml::text_of(message, "content", i));
    if (truth(calls)) {
      out.append("\n\n");
      out.append(dsml::calls_block(calls, "function_calls", false, i));
    }
    out.append(kEos);
  }

  std::vector<Value> messages_;
  Value list_;
  int64_t last_, caller_ = -1;
  const Object* last_result_ = nullptr;
  bool thinking_;
};

}  // namespace

MaskedText encode_v3_2(const Value& messages, const EncoderOptions& options) {
  std::vector<Value> kept;
  const size_t n = dsml::count(messages);
  for (size_t i = 0; i < n; ++i) dsml::role_of(messages, i);
  const int64_t last = dsml::last_question(messages.items());
  for (size_t i = 0; i < n; ++i) {
    const std::string& role = dsml::role_of(messages, i);
    // With drop_thinking the reference also forgets developer messages before the last question.
    const bool forgotten = options.thinking && options.drop_thinking && static_cast<int64_t>(i) < last &&
                           role != "user" && role != "system" && role != "tool" && role != "assistant";
    if (!forgotten) kept.push_back(messages.items()[i]);
  }
  MaskedText out;
  if (options.bos) out.append(kBos);
  const size_t count = kept.size();
  V32Writer writer(std::move(kept), options);
  for (size_t i = 0; i < count; ++i) writer.write(i, out);
  return out;
}

}  // namespace birkhoff::text::chat
