#include "apps/chat_session.h"

#include <cstdio>

#include "apps/flags.h"
#include "core/error.h"
#include "io/user_files.h"
#include "text/chat/conversation_file.h"

namespace birkhoff::apps {
namespace {

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

}  // namespace

void ChatSession::run() {
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

// Changes the history and lets the model answer. What could not be answered was not said: the history is what it was.
template <class Change>
void ChatSession::ask(Change&& change) {
  const std::vector<text::chat::Value> before = conversation_.messages();
  std::atomic<bool>& interrupted = chat_interrupted();
  interrupted = false;
  try {
    change();
    const infer::Reply r = conversation_.reply(reply_, interrupted, std::ref(printer_));
    printer_.end();
    say_accepted(r.drafted, r.accepted);
    if (r.end == infer::ReplyEnd::interrupted) std::fputs("(stopped)\n", stderr);
    if (r.end == infer::ReplyEnd::length)
      std::fprintf(stderr, "(cut off after %s tokens; the conversation has %s)\n", std::to_string(r.tokens).c_str(),
                   std::to_string(r.prompt_tokens + r.tokens).c_str());
  } catch (const Error&) {
    conversation_.load(before);
    throw;
  }
  interrupted = false;
  ++reply_.sampling.seed;  // the next answer draws other numbers
}

void ChatSession::command(const std::string& line) {
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

void ChatSession::retry() {
  const auto& messages = conversation_.messages();
  if (messages.empty() || get(messages.back(), "role").bytes() != "assistant")
    throw Error("chat", "there is no answer to take back");
  ask([&] { conversation_.drop_last(); });
}

void ChatSession::save(const std::string& path) const {
  if (path.empty()) throw Error("chat", "/save needs a file");
  io::check_not_an_input(path, read_);
  text::chat::append_conversation(path, conversation_.messages());
  std::fprintf(stderr, "%zu messages added to %s\n", conversation_.messages().size(), path.c_str());
}

void ChatSession::load(const std::string& path) {
  if (path.empty()) throw Error("chat", "/load needs a file");
  const std::vector<text::chat::Value> messages = text::chat::read_last_conversation(path);
  about_file(path, [&] { conversation_.load(messages); });
  std::fprintf(stderr, "%zu messages read from %s\n", messages.size(), path.c_str());
}

}  // namespace birkhoff::apps
