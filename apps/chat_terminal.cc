#include "apps/chat_terminal.h"

#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>

#include "apps/output.h"

namespace birkhoff::apps {
namespace {

std::atomic<bool> interrupted{false};
void on_interrupt(int) { interrupted = true; }

}  // namespace

std::atomic<bool>& chat_interrupted() { return interrupted; }

// Without SA_RESTART a read at the prompt returns.
void listen_to_interrupts() {
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  sigaction(SIGINT, &action, nullptr);
}

bool LineReader::next(std::string& line) {
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

void LineReader::prompt() {
  if (isatty(STDIN_FILENO)) std::fputs("> ", stderr);
}

AnswerPrinter::AnswerPrinter() : color_(takes_colours(stdout)) {}

void AnswerPrinter::operator()(const text::chat::Answer& delta) {
  if (!delta.reasoning.empty()) {
    if (color_ && !grey_) std::fputs("\033[2m", stdout);
    grey_ = true;
    std::fputs(delta.reasoning.c_str(), color_ ? stdout : stderr);
  }
  if (!delta.content.empty() || !delta.calls.empty()) leave_thought();
  std::fputs(delta.content.c_str(), stdout);
  for (const auto& call : delta.calls) std::printf("\n[call] %s %s", call.name.c_str(), call.arguments.c_str());
  flush_output();
}

void AnswerPrinter::end() {
  leave_thought();
  std::fputs("\n", stdout);
  flush_output();
}

void AnswerPrinter::leave_thought() {
  if (!grey_) return;
  std::fputs(color_ ? "\033[0m\n" : "\n", color_ ? stdout : stderr);
  grey_ = false;
}

}  // namespace birkhoff::apps
