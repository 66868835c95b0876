#include "train/status_line.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace birkhoff::train {

int terminal_columns() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

void StatusLine::clear() {
  if (open_) std::fputs("\r\033[K", stderr);
  open_ = false;
}

void StatusLine::show(const std::string& line) {
  const size_t room = terminal_ ? static_cast<size_t>(std::max(0, terminal_columns() - 1)) : line.size();
  std::fprintf(stderr, terminal_ ? "\r\033[K%s" : "%s\n", line.substr(0, room).c_str());
  std::fflush(stderr);
  open_ = terminal_;
}

void StatusLine::message(const std::string& text) {
  clear();
  if (!quiet_) std::fprintf(stderr, "birkhoff: %s\n", text.c_str());
}

}  // namespace birkhoff::train
