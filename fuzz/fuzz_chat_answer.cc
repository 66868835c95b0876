// Answers: every family, whole and in pieces; both ways must give the same.
#include <stdexcept>

#include "fuzz/mutate.h"
#include "text/chat/answer_parser.h"

namespace {

using namespace birkhoff::text::chat;

Answer parse(const char* family, bool thinking, const std::string& text, size_t piece) {
  AnswerParser parser(family, thinking);
  for (size_t i = 0; i < text.size(); i += piece) parser.feed(std::string_view(text).substr(i, piece));
  parser.finish();
  return parser.answer();
}

}  // namespace

int main(int argc, char** argv) {
  using namespace birkhoff;
  fuzz::Target t;
  t.name = "chat_answer";
  const std::string parameters =
      "<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" string=\"true\">x \"y\"</｜DSML｜parameter>\n"
      "<｜DSML｜parameter name=\"b\" string=\"false\">[1, 2]</｜DSML｜parameter>\n</｜DSML｜invoke>\n<｜DSML｜invoke "
      "name=\"g\">\n\n</｜DSML｜invoke>\n";
  t.seeds = {
      "<think>r</think>c\n\n<｜DSML｜tool_calls>\n" + parameters + "</｜DSML｜tool_calls><｜end▁of▁sentence｜>",
      "r</think>c\n\n<｜DSML｜function_calls>\n" + parameters + "</｜DSML｜function_calls>",
      "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": "
      "1}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{}\n```"
      "<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>",
      "c<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"};
  t.dictionary = {"<think>",
                  "</think>",
                  "<｜DSML｜",
                  "</｜DSML｜",
                  "tool_calls>",
                  "function_calls>",
                  "invoke name=\"",
                  "parameter name=\"",
                  "\" string=\"true\">",
                  "\">",
                  "\n\n",
                  "\n",
                  "<｜tool▁calls▁begin｜>",
                  "<｜tool▁call▁begin｜>",
                  "<｜tool▁sep｜>",
                  "<｜tool▁call▁end｜>",
                  "<｜tool▁calls▁end｜>",
                  "```json\n",
                  "\n```",
                  "<｜end▁of▁sentence｜>",
                  "<｜",
                  "｜>"};
  t.run = [](const std::string& input) {
    for (const char* family : {"", "v3", "v3.1", "v3.2", "v4"})
      for (const bool thinking : {false, true}) {
        const Answer whole = parse(family, thinking, input, input.size() + 1),
                     pieces = parse(family, thinking, input, 1 + input.size() % 7);
        if (whole.content != pieces.content || whole.reasoning != pieces.reasoning || whole.calls != pieces.calls)
          throw std::logic_error("pieces are read differently from the whole");
      }
  };
  return fuzz::run(argc, argv, t);
}
