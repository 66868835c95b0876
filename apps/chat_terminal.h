// The terminal side of `chat`: lines that Ctrl-C can break off, answers as they come.
#pragma once
#include <atomic>
#include <string>

#include "text/chat/answer_parser.h"

namespace birkhoff::apps {

// Raised by Ctrl-C, which ends an answer and not the program; whoever sees it lowers it.
std::atomic<bool>& chat_interrupted();
void listen_to_interrupts();

// One line of standard input, byte by byte from the descriptor, so that a signal is seen. A backslash at its end goes
// on in the next.
class LineReader {
 public:
  bool next(std::string& line);  // false: end of input
  static void prompt();          // where a person types

 private:
  char buffer_[4096];
  size_t at_ = 0, size_ = 0;
};

// Thoughts are grey on a terminal and go to stderr elsewhere, so that piped output holds answers alone.
class AnswerPrinter {
 public:
  AnswerPrinter();
  void operator()(const text::chat::Answer& delta);
  void end();

 private:
  void leave_thought();
  const bool color_;
  bool grey_ = false;
};

}  // namespace birkhoff::apps
