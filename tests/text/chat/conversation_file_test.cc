// Histories and tools in files: what was written is read back, and what is wrong names its file.
#include "text/chat/conversation_file.h"

#include "support/temp_dir.h"
#include "text/jinja/json_value.h"
#include "text/jinja/python_print.h"

namespace birkhoff::test {
namespace {

using text::chat::Value;

std::vector<Value> history(const char* json) { return text::chat::parse_json(json).items(); }
std::string written(const std::vector<Value>& messages) { return json_dump(Value::list(messages)).bytes(); }

TEST(ConversationFile, TheLastLineIsReadBack) {
  const TempDir dir;
  const auto first = history(R"([{"role": "user", "content": "a\nb"}])"),
             second = history(R"([{"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}])");
  text::chat::append_conversation(dir / "said.jsonl", first);
  EXPECT_EQ(written(text::chat::read_last_conversation(dir / "said.jsonl")), written(first));
  text::chat::append_conversation(dir / "said.jsonl", second);
  EXPECT_EQ(written(text::chat::read_last_conversation(dir / "said.jsonl")), written(second));
}

TEST(ConversationFile, AFileMayBeOneValue) {
  const TempDir dir;
  const std::string file = dir.file("one.json", "{\n\"messages\": [\n{\"role\": \"user\", \"content\": \"a\"}]\n}\n");
  EXPECT_EQ(text::chat::read_last_conversation(file).size(), 1u);
}

TEST(ConversationFile, WhatIsNoneIsRefusedByName) {
  const TempDir dir;
  const auto refused = [&](const char* content, const std::string& says) {
    const std::string file = dir.file("odd", content);
    expect_error([&] { text::chat::read_last_conversation(file); }, {file, says});
  };
  refused("", "odd: ");
  refused("{\"messages\": \n", "odd: ");
  refused("[1]", "no \"messages\"");
  refused("{\"messages\": {}}", "no \"messages\"");
  expect_error([&] { text::chat::read_last_conversation(dir.path()); }, {dir.path(), "is a directory"});
}

TEST(ConversationFile, ToolsAreAListOfObjects) {
  const TempDir dir;
  EXPECT_EQ(text::chat::read_tools(dir.file("tools", R"([{"type": "function"}, {}])")).items().size(), 2u);
  for (const char* content : {"{}", "[1]", "\"x\""}) {
    const std::string file = dir.file("odd", content);
    expect_error([&] { text::chat::read_tools(file); }, {file + ": is no list of tools"});
  }
  const std::string file = dir.file("odd", "text");
  expect_error([&] { text::chat::read_tools(file); }, {file});
}

}  // namespace
}  // namespace birkhoff::test
