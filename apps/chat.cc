#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <fstream>

#include "apps/verbs.h"
#include "core/error.h"
#include "infer/conversation.h"
#include "text/chat/json_value.h"
#include "text/chat/python_print.h"

namespace birkhoff::apps {
namespace {

using text::chat::Answer;
using text::chat::Value;

constexpr const char* kHelp =
    "/reset             forget the conversation, keep the system message\n"
    "/system [TEXT]     set or remove the system message; starts over\n"
    "/think on|off      let the model think before it answers\n"
    "/tool TEXT         answer a tool call with its result\n"
    "/retry             take the last answer back and ask again\n"
    "/save FILE         write the conversation as a JSON line\n"
    "/load FILE         read one back\n"
    "/help, /exit       (Ctrl-D leaves as well; Ctrl-C stops an answer)\n"
    "A line that ends with a backslash goes on in the next.\n";

struct Flags {
  std::string model, system, tools, dtype;
  int64_t context = 0;
  infer::ReplyOptions reply;
};

std::atomic<bool> interrupted{false};

// Ctrl-C ends an answer, not the program. Without SA_RESTART a read at the prompt returns.
void on_interrupt(int) { interrupted = true; }

void listen_to_interrupts() {
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  sigaction(SIGINT, &action, nullptr);
}

// One line of standard input, byte by byte from the descriptor, so that a signal is seen. false: end of input.
class LineReader {
 public:
  bool next(std::string& line) {
    line.clear();
    while (true) {
      if (at_ == size_) {
        const ssize_t n = ::read(STDIN_FILENO, buffer_, sizeof buffer_);
        if (n < 0 && errno == EINTR) {
          if (!interrupted.exchange(false)) continue;
          line.clear();
          std::fputs("\n(Ctrl-D or /exit leaves)\n", stderr);
          prompt();
          continue;
        }
        if (n <= 0) return !line.empty();
        at_ = 0;
        size_ = static_cast<size_t>(n);
      }
      const char c = buffer_[at_++];
      if (c != '\n') {
        line += c;
      } else if (!line.empty() && line.back() == '\\') {
        line.back() = '\n';
      } else {
        return true;
      }
    }
  }
  static void prompt() {
    if (isatty(STDIN_FILENO)) std::fputs("> ", stderr);
  }

 private:
  char buffer_[4096];
  size_t at_ = 0, size_ = 0;
};

// Thoughts are grey on a terminal and go to stderr elsewhere, so that piped output holds answers alone.
class Printer {
 public:
  void operator()(const Answer& delta) {
    if (!delta.reasoning.empty()) {
      if (color_ && !grey_) std::fputs("\033[2m", stdout);
      grey_ = true;
      std::fputs(delta.reasoning.c_str(), color_ ? stdout : stderr);
    }
    if (!delta.content.empty() || !delta.calls.empty()) leave_thought();
    std::fputs(delta.content.c_str(), stdout);
    for (const auto& call : delta.calls) std::printf("\n[call] %s %s", call.name.c_str(), call.arguments.c_str());
    std::fflush(stdout);
  }
  void end() {
    leave_thought();
    std::fputs("\n", stdout);
    std::fflush(stdout);
  }

 private:
  void leave_thought() {
    if (!grey_) return;
    std::fputs(color_ ? "\033[0m\n" : "\n", color_ ? stdout : stderr);
    grey_ = false;
  }
  const bool color_ = isatty(STDOUT_FILENO);
  bool grey_ = false;
};

class Chat {
 public:
  Chat(const infer::Engine& engine, const Flags& f) : conversation_(engine), reply_(f.reply) {
    if (!f.system.empty()) conversation_.set_system(f.system);
    if (!f.tools.empty()) conversation_.set_tools(text::chat::parse_json(read_text_file(f.tools)));
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
        std::fprintf(stderr, "%s\n%s%s%s", e.what(), e.hint().empty() ? "" : "  hint: ", e.hint().c_str(), e.hint().empty() ? "" : "\n");
      }
    }
  }

 private:
  template <class Add>
  void ask(Add&& add) {
    add();
    interrupted = false;
    try {
      const infer::Reply r = conversation_.reply(reply_, interrupted, std::ref(printer_));
      printer_.end();
      if (r.end == infer::ReplyEnd::interrupted) std::fputs("(stopped)\n", stderr);
      if (r.end == infer::ReplyEnd::length) std::fprintf(stderr, "(cut off after %lld tokens; the conversation has %lld)\n", static_cast<long long>(r.tokens), static_cast<long long>(r.prompt_tokens + r.tokens));
    } catch (const Error&) {
      conversation_.drop_last();  // what could not be answered was not said
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
    if (messages.empty() || get(messages.back(), "role").bytes() != "assistant") throw Error("chat", "there is no answer to take back");
    conversation_.drop_last();
    ask([] {});
  }

  void save(const std::string& path) {
    if (path.empty()) throw Error("chat", "/save needs a file");
    auto line = std::make_shared<text::chat::DictObject>();
    line->set("messages", Value::list(conversation_.messages()));
    std::ofstream out(path, std::ios::binary);
    out << json_dump(Value::dict(std::move(line))).bytes() << "\n";
    out.close();
    if (!out) throw Error("chat", path + ": cannot be written");
    std::fprintf(stderr, "%zu messages written to %s\n", conversation_.messages().size(), path.c_str());
  }

  void load(const std::string& path) {
    if (path.empty()) throw Error("chat", "/load needs a file");
    const Value messages = get(text::chat::parse_json(read_text_file(path)), "messages");
    if (!messages.is_sequence()) throw Error("chat", path + ": no \"messages\"", "one line that /save wrote was expected");
    conversation_.load(messages.items());
    std::fprintf(stderr, "%zu messages read from %s\n", messages.items().size(), path.c_str());
  }

  infer::Conversation conversation_;
  infer::ReplyOptions reply_;
  Printer printer_;
};

}  // namespace

void add_chat(CLI::App& app, Program& p) {
  auto f = std::make_shared<Flags>();
  CLI::App* verb = app.add_subcommand("chat", "A conversation with a model in the terminal");
  verb->add_option("-m,--model", f->model, "run, checkpoint or model directory with a tokenizer")->required();
  verb->add_option("--system", f->system, "system message");
  verb->add_option("--tools", f->tools, "JSON file with a list of tools");
  verb->add_flag("--think", f->reply.thinking, "let the model think first");
  verb->add_option("-n,--count", f->reply.max_tokens, "longest answer in tokens; 0: what fits")->capture_default_str();
  verb->add_option("--context", f->context, "longest conversation in tokens; default: the model's, at most 4096");
  verb->add_option("--temp", f->reply.sampling.temperature, "temperature; 0 takes the most probable")->capture_default_str();
  verb->add_option("--top-k", f->reply.sampling.top_k, "0: all")->capture_default_str();
  verb->add_option("--top-p", f->reply.sampling.top_p)->capture_default_str();
  verb->add_option("--min-p", f->reply.sampling.min_p)->capture_default_str();
  verb->add_option("--seed", f->reply.sampling.seed)->capture_default_str();
  verb->add_option("--dtype", f->dtype, "bf16 or fp32; default: as trained");
  verb->add_option("--threads", p.threads, "default: all cores");
  verb->callback([f, &p] {
    p.run = [f, &p] {
      infer::validate(f->reply.sampling);
      if (f->reply.max_tokens < 0) throw Error("chat", "-n must not be negative, is " + std::to_string(f->reply.max_tokens), "", ExitCode::usage);
      infer::EngineOptions options;
      options.compute = f->dtype;
      options.threads = p.thread_count();
      options.max_positions = f->context;
      const infer::Engine engine(f->model, options);
      if (!engine.note().empty()) std::fprintf(stderr, "birkhoff: %s\n", engine.note().c_str());
      Chat chat(engine, *f);
      listen_to_interrupts();
      chat.run();
      return 0;
    };
  });
}

}  // namespace birkhoff::apps
