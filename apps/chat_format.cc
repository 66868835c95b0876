#include "text/chat/chat_format.h"

#include "apps/output.h"
#include "apps/verbs.h"
#include "core/error.h"
#include "text/jinja/json_value.h"
#include "text/jinja/python_print.h"

namespace birkhoff::apps {
namespace {

using namespace text::chat;

struct ChatFormatFlags {
  std::string model, file, encoder;
  bool jsonl = false, spans = false;
};

ChatFormat open_format(const ChatFormatFlags& f) {
  if (static_cast<int>(!f.model.empty()) + !f.file.empty() + !f.encoder.empty() != 1)
    throw Error("chat-format", "needs one of -m, --template and --encoder", "", ExitCode::usage);
  if (!f.encoder.empty()) return ChatFormat::native(f.encoder);
  return f.model.empty() ? ChatFormat::from_template(read_text_file(f.file)) : ChatFormat::open(f.model);
}

Value answer(const ChatFormat& format, const std::string& line, bool spans) {
  auto out = std::make_shared<DictObject>();
  try {
    const Value input = parse_json(line);
    const MaskedText text = format.render(get(input, "messages"), get(input, "tools"), get(input, "options"));
    out->set("text", Value::string(text.bytes()));
    if (spans) {
      std::vector<Value> list;
      for (const Span& span : text.spans()) {
        auto one = std::make_shared<DictObject>();
        one->set("text", Value::string(span.text));
        one->set("from_content", Value::boolean(span.from_content));
        list.push_back(Value::dict(std::move(one)));
      }
      out->set("spans", Value::list(std::move(list)));
    }
  } catch (const Error& e) {
    out->set("error", Value::string(e.what()));
  }
  return Value::dict(std::move(out));
}

}  // namespace

void add_chat_format(CLI::App& app, Program& p) {
  auto f = std::make_shared<ChatFormatFlags>();
  CLI::App* verb =
      app.add_subcommand("chat-format", "Turn conversations into prompts: JSON lines on stdin, one result a line");
  verb->add_option("-m,--model", f->model, "model directory or GGUF file: its chat template, or its family's encoder");
  verb->add_option("--template", f->file, "a Jinja file");
  verb->add_option("--encoder", f->encoder, "v3.2 or v4");
  verb->add_flag("--jsonl", f->jsonl, "lines of {messages, tools, options} (the only form)");
  verb->add_flag("--spans", f->spans, "also the runs of the prompt and whether they come from contents");
  verb->callback([f, &p] {
    p.run = [f] {
      const ChatFormat format = open_format(*f);
      for (std::string line; next_line(line);)
        if (line.find_first_not_of(" \t\r") != std::string::npos)
          write_line(json_dump(answer(format, line, f->spans)).bytes());
      return 0;
    };
  });
}

}  // namespace birkhoff::apps
