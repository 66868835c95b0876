#include "apps/output.h"
#include "apps/verbs.h"
#include "core/error.h"
#include "text/chat/answer_parser.h"
#include "text/jinja/json_value.h"
#include "text/jinja/python_print.h"

namespace birkhoff::apps {
namespace {

using namespace text::chat;

std::shared_ptr<DictObject> parse_line(const std::string& family, const std::string& line, bool stream) {
  auto out = std::make_shared<DictObject>();
  try {
    const Value input = parse_json(line);
    AnswerParser parser(family, thinking_of(get(input, "options")));
    const Value given = get(input, stream ? "pieces" : "text");
    if (stream ? !given.is_sequence() : !given.is(Kind::string))
      throw Error("chat-parse", stream ? "\"pieces\" must be a list of texts" : "\"text\" must be text");
    const std::vector<Value> pieces = stream ? given.items() : std::vector<Value>{given};
    for (const Value& piece : pieces) {
      if (!piece.is(Kind::string)) throw Error("chat-parse", "a piece is no text");
      parser.feed(piece.bytes());
    }
    parser.finish();
    out->set("message", parser.answer().to_message());
  } catch (const Error& e) {
    if (e.code() == ExitCode::usage) throw;
    out->set("error", Value::string(e.what()));
  }
  return out;
}

}  // namespace

void add_chat_parse(CLI::App& app, Program& p) {
  struct ChatParseFlags {
    std::string encoder;
    bool jsonl = false, stream = false;
  };
  auto f = std::make_shared<ChatParseFlags>();
  CLI::App* verb = app.add_subcommand("chat-parse", "Read answers of a model: JSON lines on stdin, one message a line");
  verb->add_option("--encoder", f->encoder, "v3, v3.1, v3.2 or v4")->required();
  verb->add_flag("--jsonl", f->jsonl, "lines of {text, options} (the only form)");
  verb->add_flag("--stream", f->stream, "lines of {pieces, options}: fed piece by piece");
  verb->callback([f, &p] {
    p.run = [f] {
      if (f->encoder.empty())
        throw Error("chat-parse", "--encoder is empty", "there are v3, v3.1, v3.2 and v4", ExitCode::usage);
      const AnswerParser known(f->encoder, false);  // refuses an unknown name before the first line
      for (std::string line; next_line(line);)
        if (line.find_first_not_of(" \t\r") != std::string::npos)
          write_line(json_dump(Value::dict(parse_line(f->encoder, line, f->stream))).bytes());
      return 0;
    };
  });
}

}  // namespace birkhoff::apps
