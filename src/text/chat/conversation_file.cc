#include "text/chat/conversation_file.h"

#include <algorithm>

#include "core/error.h"
#include "io/atomic_file.h"
#include "io/user_files.h"
#include "text/jinja/json_value.h"
#include "text/jinja/python_print.h"

namespace birkhoff::text::chat {
namespace {

constexpr size_t kMaxConversationBytes = size_t{64} << 20;

Value parse_file(const std::string& path, const std::string& content) {
  return about_file(path, [&] { return parse_json(std::string(io::without_mark(content))); });
}

// The last line of a file of lines, or all of a file that is one value.
Value last_value(const std::string& path) {
  const std::string content = io::read_stream(path, kMaxConversationBytes);
  const size_t end = content.find_last_not_of(" \t\r\n");
  const size_t before = end == std::string::npos ? end : content.rfind('\n', end);
  if (before != std::string::npos) {
    try {
      return parse_json(content.substr(before + 1, end - before));
    } catch (const Error&) {  // then it is no file of lines
    }
  }
  return parse_file(path, content);
}

}  // namespace

std::vector<Value> read_last_conversation(const std::string& path) {
  const Value messages = get(last_value(path), "messages");
  if (!messages.is_sequence())
    throw Error("chat", path + ": no \"messages\"", "a line {\"messages\": [...]} was expected");
  return messages.items();
}

void append_conversation(const std::string& path, const std::vector<Value>& messages) {
  auto line = std::make_shared<DictObject>();
  line->set("messages", Value::list(messages));
  io::append_line(path, json_dump(Value::dict(std::move(line))).bytes());
}

Value read_tools(const std::string& path) {
  const Value tools = parse_file(path, io::read_stream(path, kMaxConversationBytes));
  const auto is_object = [](const Value& v) { return v.is(Kind::dict); };
  if (!tools.is_sequence() || !std::all_of(tools.items().begin(), tools.items().end(), is_object))
    throw Error("chat", path + ": is no list of tools",
                "expected [{\"type\": \"function\", \"function\": {\"name\": ..., \"parameters\": ...}}, ...]");
  return tools;
}

}  // namespace birkhoff::text::chat
