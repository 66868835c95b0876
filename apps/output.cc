#include "apps/output.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <utility>

#include "io/user_files.h"
#include "train/status_line.h"

namespace birkhoff::apps {
namespace {

// The errno of a write that failed inside the library some time ago.
int reason_of_failure() {
  pollfd p{STDOUT_FILENO, POLLOUT, 0};
  if (::poll(&p, 1, 0) > 0 && (p.revents & POLLERR)) return EPIPE;
  return ::write(STDOUT_FILENO, "\n", 1) < 0 ? errno : EIO;  // what is there is torn already
}

bool is_dumb() {
  const char* term = std::getenv("TERM");
  return term && std::string_view(term) == "dumb";
}

}  // namespace

void reserve_standard_streams() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) ::open("/dev/null", fd == STDERR_FILENO ? O_WRONLY : O_RDONLY);
  std::ios::sync_with_stdio(false);  // std::cin has a buffer of its own
}

void flush_output() {
  const bool failed_before = std::ferror(stdout) != 0;
  if (std::fflush(stdout) != 0) throw OutputFailed{errno};
  if (failed_before) throw OutputFailed{reason_of_failure()};
}

void write_line(std::string_view line) {
  std::fwrite(line.data(), 1, line.size(), stdout);
  std::fputc('\n', stdout);
  if (std::ferror(stdout)) flush_output();
}

bool next_line(std::string& line) {
  if (std::cin.rdbuf()->in_avail() <= 0) flush_output();
  if (!std::getline(std::cin, line)) {
    if (std::cin.bad()) io::file_error("standard input", "", errno);
    return false;
  }
  static bool first = true;
  if (std::exchange(first, false)) line = std::string(io::without_mark(line));
  return true;
}

bool shows_bar() { return isatty(STDERR_FILENO) && !is_dumb(); }

bool takes_colours(std::FILE* stream) {
  const char* no_color = std::getenv("NO_COLOR");
  return isatty(fileno(stream)) && !(no_color && *no_color) && !is_dumb();
}

std::function<void(int64_t, int64_t)> preparing_progress() {
  struct State {
    train::StatusLine line{shows_bar(), false};
    std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
    bool said = false;
  };
  return [state = std::make_shared<State>()](int64_t done, int64_t all) {
    const std::string mib = std::to_string(all >> 20) + " MiB of weights";
    if (!state->line.terminal()) {
      if (!std::exchange(state->said, true)) state->line.message("preparing " + mib);
      return;
    }
    const double gone = std::chrono::duration<double>(std::chrono::steady_clock::now() - state->start).count();
    const double left = gone * static_cast<double>(all - done) / static_cast<double>(std::max<int64_t>(done, 1));
    state->line.show("preparing " + std::to_string(done >> 20) + " of " + mib + ", " +
                     std::to_string(static_cast<int64_t>(left + 0.5)) + " s left");
  };
}

}  // namespace birkhoff::apps
