#include <algorithm>
#include <cstdio>

#include "apps/chat_terminal.h"
#include "apps/flags.h"
#include "apps/verbs.h"
#include "core/error.h"
#include "infer/conversation.h"
#include "io/atomic_file.h"
#include "io/user_files.h"
#include "text/jinja/json_value.h"
#include "text/jinja/python_print.h"

namespace birkhoff::apps {
namespace {

using text::chat::ChatFormat;
using text::chat::Value;

constexpr const char* kHelp =
    "/reset             forget the conversation, keep the system message\n"
    "/system [TEXT]     set or remove the system message; starts over\n"
    "/think on|off      let the model think before it answers\n"
    "/tool TEXT         answer a tool call with its result\n"
    "/retry             take the last answer back and ask again\n"
    "/save FILE         add the conversation to the file, as a line of JSON\n"
    "/load FILE         read the last line back\n"
    "/help, /exit       (Ctrl-D leaves as well; Ctrl-C stops an answer)\n"
    "A line that ends with a backslash goes on in the next.\n";

struct ChatFlags {
  std::string model, system, tools, chat_template, encoder, dtype;
  std::vector<std::string> set;
  int64_t context = 0;
  infer::ReplyOptions reply;
};

// A file of JSON; what is wrong with it names the file.
Value read_json_file(const std::string& path) {
  const std::string content = read_text_file(path);
  try {
    return text::chat::parse_json(std::string(io::without_mark(content)));
  } catch (const Error& e) {
    const std::string said = e.what();  // "[where] what"
    throw Error("chat", path + ": " + said.substr(said.find(']') + 2), e.hint(), e.code());
  }
}

// The last line of a file of lines, or all of a file that is one value.
Value last_of_json_lines(const std::string& path) {
  const std::string content = read_text_file(path);
  const size_t end = content.find_last_not_of(" \t\r\n");
  const size_t before = end == std::string::npos ? end : content.rfind('\n', end);
  if (before != std::string::npos) {
    try {
      return text::chat::parse_json(content.substr(before + 1, end - before));
    } catch (const Error&) {  // then it is no file of lines
    }
  }
  return read_json_file(path);
}

// A list of objects, in a file that holds that alone.
Value read_tools(const std::string& path) {
  const Value tools = read_json_file(path);
  const auto is_object = [](const Value& v) { return v.is(text::chat::Kind::dict); };
  if (!tools.is_sequence() || !std::all_of(tools.items().begin(), tools.items().end(), is_object))
    throw Error("chat", path + ": is no list of tools",
                "expected [{\"type\": \"function\", \"function\": {\"name\": ..., \"parameters\": ...}}, ...]");
  return tools;
}

ChatFormat open_format(const infer::Engine& engine, const ChatFlags& f) {
  return f.encoder.empty() ? ChatFormat::open(engine.directory(), f.chat_template) : ChatFormat::native(f.encoder);
}

class Chat {
 public:
  Chat(const infer::Engine& engine, const ChatFlags& f)
      : conversation_(engine, open_format(engine, f)), reply_(f.reply), read_{f.tools, f.chat_template} {
    if (!f.system.empty()) conversation_.set_system(f.system);
    if (!f.tools.empty()) conversation_.set_tools(read_tools(f.tools));
  }

  void run() {
    LineReader reader;
    LineReader::prompt();
    for (std::string line; reader.next(line); LineReader::prompt()) {
      try {
        if (line == "/exit" || line == "/quit") return;
        if (line.starts_with("/"))
          command(line);
        else if (line.find_first_not_of(" \t\r\n") != std::string::npos)
          ask([&] { conversation_.add_user(line); });
      } catch (const Error& e) {
        std::fprintf(stderr, "%s\n%s%s%s", e.what(), e.hint().empty() ? "" : "  hint: ", e.hint().c_str(),
                     e.hint().empty() ? "" : "\n");
      }
    }
  }

 private:
  // Changes the history and lets the model answer. What could not be answered was not said: the history is what it was.
  template <class Change>
  void ask(Change&& change) {
    const std::vector<Value> before = conversation_.messages();
    std::atomic<bool>& interrupted = chat_interrupted();
    interrupted = false;
    try {
      change();
      const infer::Reply r = conversation_.reply(reply_, interrupted, std::ref(printer_));
      printer_.end();
      if (r.end == infer::ReplyEnd::interrupted) std::fputs("(stopped)\n", stderr);
      if (r.end == infer::ReplyEnd::length)
        std::fprintf(stderr, "(cut off after %lld tokens; the conversation has %lld)\n",
                     static_cast<long long>(r.tokens), static_cast<long long>(r.prompt_tokens + r.tokens));
    } catch (const Error&) {
      conversation_.load(before);
      throw;
    }
    interrupted = false;
    ++reply_.sampling.seed;  // the next answer draws other numbers
  }

  void command(const std::string& line) {
    const size_t space = line.find(' ');
    const std::string name = line.substr(0, space), rest = space == std::string::npos ? "" : line.substr(space + 1);
    if (name == "/help") {
      std::fputs(kHelp, stderr);
    } else if (name == "/reset") {
      conversation_.clear();
    } else if (name == "/system") {
      conversation_.set_system(rest);
    } else if (name == "/think") {
      if (rest != "on" && rest != "off") throw Error("chat", "/think takes on or off, not '" + rest + "'");
      reply_.thinking = rest == "on";
    } else if (name == "/tool") {
      ask([&] { conversation_.add_tool_result(rest); });
    } else if (name == "/retry") {
      retry();
    } else if (name == "/save") {
      save(rest);
    } else if (name == "/load") {
      load(rest);
    } else {
      throw Error("chat", "no command " + name, "/help lists them; a message may not begin with a slash");
    }
  }

  void retry() {
    const auto& messages = conversation_.messages();
    if (messages.empty() || get(messages.back(), "role").bytes() != "assistant")
      throw Error("chat", "there is no answer to take back");
    ask([&] { conversation_.drop_last(); });
  }

  void save(const std::string& path) {
    if (path.empty()) throw Error("chat", "/save needs a file");
    auto line = std::make_shared<text::chat::DictObject>();
    line->set("messages", Value::list(conversation_.messages()));
    io::check_not_an_input(path, read_);
    io::append_line(path, json_dump(Value::dict(std::move(line))).bytes());
    std::fprintf(stderr, "%zu messages added to %s\n", conversation_.messages().size(), path.c_str());
  }

  void load(const std::string& path) {
    if (path.empty()) throw Error("chat", "/load needs a file");
    const Value messages = get(last_of_json_lines(path), "messages");
    if (!messages.is_sequence())
      throw Error("chat", path + ": no \"messages\"", "one line that /save wrote was expected");
    try {
      conversation_.load(messages.items());
    } catch (const Error& e) {
      const std::string said = e.what();
      throw Error("chat", path + ": " + said.substr(said.find(']') + 2), e.hint(), e.code());
    }
    std::fprintf(stderr, "%zu messages read from %s\n", messages.items().size(), path.c_str());
  }

  infer::Conversation conversation_;
  infer::ReplyOptions reply_;
  std::vector<std::string> read_;  // what /save leaves alone
  AnswerPrinter printer_;
};

}  // namespace

void add_chat(CLI::App& app, Program& p) {
  auto f = std::make_shared<ChatFlags>();
  CLI::App* verb = app.add_subcommand("chat", "A conversation with a model in the terminal");
  verb->add_option("-m,--model", f->model, "run, checkpoint or model directory with a tokenizer")->required();
  verb->add_option("--system", f->system, "system message");
  auto* file = verb->add_option("--template", f->chat_template, "Jinja file to use instead of the directory's own");
  verb->add_option("--encoder", f->encoder, "v3.2 or v4: a format without a template")->excludes(file);
  verb->add_option("--tools", f->tools, "JSON file with a list of tools");
  verb->add_flag("--think", f->reply.thinking, "let the model think first");
  verb->add_option("-n,--count", f->reply.max_tokens, "longest answer in tokens; 0: what fits")
      ->check(whole_number(0, INT32_MAX))
      ->capture_default_str();
  verb->add_option("--context", f->context, "longest conversation in tokens; default: the model's, at most 4096")
      ->check(whole_number(1, INT32_MAX));
  verb->add_option("--temp", f->reply.sampling.temperature, "temperature; 0 takes the most probable")
      ->capture_default_str();
  verb->add_option("--top-k", f->reply.sampling.top_k, "0: all")->capture_default_str();
  verb->add_option("--top-p", f->reply.sampling.top_p)->capture_default_str();
  verb->add_option("--min-p", f->reply.sampling.min_p)->capture_default_str();
  verb->add_option("--seed", f->reply.sampling.seed)->capture_default_str();
  verb->add_option("--dtype", f->dtype, "bf16 or fp32; default: as trained");
  verb->add_option("--set", f->set, "key=value over the model's config.json; repeatable")->allow_extra_args(false);
  verb->add_option("--threads", p.threads, "default: all cores");
  verb->callback([f, &p] {
    p.run = [f, &p] {
      infer::validate(f->reply.sampling);
      infer::EngineOptions options;
      options.compute = f->dtype;
      options.set = f->set;
      options.threads = p.thread_count();
      if (f->context) options.enough_positions = f->context;
      const infer::Engine engine(f->model, options);
      if (f->context > engine.max_positions())
        throw Error("chat",
                    "--context " + std::to_string(f->context) + ": the model has max_position_embeddings " +
                        std::to_string(engine.max_positions()),
                    "lower it, or leave it out", ExitCode::usage);
      if (!engine.note().empty()) std::fprintf(stderr, "birkhoff: %s\n", engine.note().c_str());
      Chat chat(engine, *f);
      listen_to_interrupts();
      chat.run();
      return 0;
    };
  });
}

}  // namespace birkhoff::apps
