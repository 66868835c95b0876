#include "train/status_line.h"

#include <cstdio>

namespace birkhoff::train {

void StatusLine::clear() {
  if (open_) std::fputs("\r\033[K", stderr);
  open_ = false;
}

void StatusLine::show(const std::string& line) {
  std::fprintf(stderr, terminal_ ? "\r\033[K%s" : "%s\n", line.c_str());
  std::fflush(stderr);
  open_ = terminal_;
}

void StatusLine::message(const std::string& text) {
  clear();
  if (!quiet_) std::fprintf(stderr, "birkhoff: %s\n", text.c_str());
}

}  // namespace birkhoff::train
