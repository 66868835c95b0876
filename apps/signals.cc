#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <ctime>

#include "apps/verbs.h"
#include "core/error.h"
#include "io/mapped_file.h"

namespace birkhoff::apps {
namespace {

std::atomic<bool> stop{false};
std::atomic<int64_t> first_signal_ms{0};
std::atomic<const char*> told_at_first{nullptr};

// Of signal handlers, so write() alone.
void say(const char* text) {
  if (::write(STDERR_FILENO, text, std::strlen(text)) < 0) return;
}

// A second signal ends the program at once. One that comes within a second is the same wish: a process group and its
// leader both pass it on.
void on_signal(int number) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const int64_t ms = now.tv_sec * 1000 + now.tv_nsec / 1000000;
  int64_t first = 0;
  if (first_signal_ms.compare_exchange_strong(first, ms)) {
    stop = true;
    if (const char* said = told_at_first) {
      say(isatty(STDERR_FILENO) ? "\nbirkhoff: " : "birkhoff: ");  // a line of progress may be open
      say(said);
      say("\n");
    }
  } else if (ms - first > 1000) {
    std::signal(number, SIG_DFL);
    std::raise(number);
  }
}

// A mapped file lost its end, or its disk failed. Nothing can be gone on with: the thread that reads needs those bytes.
void on_bus_error(int number, siginfo_t* info, void*) {
  bool shorter = false;
  const char* path = io::mapped_file_at(info->si_addr, shorter);
  if (!path) {
    std::signal(number, SIG_DFL);
    std::raise(number);
    return;
  }
  say(isatty(STDERR_FILENO) ? "\nbirkhoff: [file] " : "birkhoff: [file] ");
  say(path);
  say(shorter ? ": became shorter while it was read\n  hint: replace files by renaming new ones over them\n"
              : ": could not be read from its disk\n");
  _exit(static_cast<int>(ExitCode::input));
}

}  // namespace

const std::atomic<bool>& stop_requested() { return stop; }

void install_stop_handlers(const char* said) {
  told_at_first = said;
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;  // stdio takes a write that a signal broke off for one that failed
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction before {};
    sigaction(number, nullptr, &before);
    if (before.sa_handler != SIG_IGN) sigaction(number, &action, nullptr);  // nohup stays what it is
  }
}

void install_fault_handlers() {
  std::signal(SIGXFSZ, SIG_IGN);  // a file at its size limit is a failed write with a message, not a killed process
  std::signal(SIGPIPE, SIG_IGN);  // and so is a pipe that nobody reads any more
  struct sigaction action {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace birkhoff::apps
