// Lines of conversations through both encoders and two templates.
#include "core/error.h"
#include "fuzz/mutate.h"
#include "text/chat/chat_format.h"
#include "text/jinja/json_value.h"

int main(int argc, char** argv) {
  using namespace birkhoff;
  using namespace birkhoff::text::chat;
  const ChatFormat formats[] = {
      ChatFormat::native("v3.2"), ChatFormat::native("v4"),
      ChatFormat::from_template("{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% for t in m.tool_calls or "
                                "[] %}{{ t.function.name }}{{ t.function.arguments }}"
                                "{% endfor %}{% endfor %}{{ tools | tojson if tools }}")};
  fuzz::Target t;
  t.name = "chat_lines";
  t.seeds = {
      R"({"messages": [{"role": "system", "content": "Be brief.", "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]}, {"role": "user", "content": "Hi \u00fc"}, {"role": "assistant", "content": null, "reasoning_content": "r", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1, \"b\": [1e-7, null, \"x\"]}"}}, {"id": "c2", "function": {"name": "g", "arguments": {}}}]}, {"role": "tool", "tool_call_id": "c2", "content": "2"}, {"role": "tool", "tool_call_id": "c1", "content": "1"}], "options": {"thinking_mode": "thinking", "drop_thinking": false}})",
      R"({"messages": [{"role": "developer", "content": "d", "response_format": {"type": "json"}}, {"role": "latest_reminder", "content": "2024"}, {"role": "user", "content": "q", "task": "action"}, {"role": "assistant", "content": "Search", "wo_eos": true}], "options": {"thinking_mode": "chat"}})",
      R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}], "tools": [{"type": "function", "function": {"name": "f"}}], "options": {}})"};
  t.dictionary = {"\"role\":",
                  "\"user\"",
                  "\"tool\"",
                  "\"assistant\"",
                  "\"system\"",
                  "\"content\":",
                  "null",
                  "true",
                  "[]",
                  "{}",
                  "123456789012345678901234567890",
                  "1e999",
                  "-0.0",
                  "NaN",
                  "\\ud800",
                  "\\u0000",
                  "\"tool_calls\":",
                  "\"tools\":",
                  "\"task\":",
                  "\"options\":",
                  "\"reasoning_effort\":",
                  "\"max\"",
                  "\"drop_thinking\":",
                  "[[[[",
                  "{\"a\":"};
  t.run = [&](const std::string& input) {
    const Value line = parse_json(input);
    for (const ChatFormat& format : formats) try {
        format.render(get(line, "messages"), get(line, "tools"), get(line, "options"));
      } catch (const Error&) {  // each format may refuse the line by itself
      }
  };
  return fuzz::run(argc, argv, t);
}
