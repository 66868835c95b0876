// A conversation in the terminal: lines of standard input are messages, or commands that begin with a slash.
#pragma once
#include "apps/chat_terminal.h"
#include "infer/conversation.h"

namespace birkhoff::apps {

class ChatSession {
 public:
  // read: files that /save leaves alone.
  ChatSession(infer::Conversation& conversation, const infer::ReplyOptions& reply, std::vector<std::string> read)
      : conversation_(conversation), reply_(reply), read_(std::move(read)) {}
  // Until the input ends, or /exit. What goes wrong is said on stderr and leaves the history as it was.
  void run();

 private:
  template <class Change>
  void ask(Change&& change);
  void command(const std::string& line);
  void retry();
  void save(const std::string& path) const;
  void load(const std::string& path);

  infer::Conversation& conversation_;
  infer::ReplyOptions reply_;
  std::vector<std::string> read_;
  AnswerPrinter printer_;
};

}  // namespace birkhoff::apps
