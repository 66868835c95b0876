// Scopes in which the system refuses things.
#pragma once
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

namespace birkhoff::test {

// Files may not grow beyond `bytes`: a disk that fills up.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit now{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &now);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

// Root may do everything; inside this scope it may not.
class WithoutPrivileges {
 public:
  WithoutPrivileges() : user_(geteuid()) {
    if (user_ == 0) dropped_ = seteuid(65534) == 0;
  }
  ~WithoutPrivileges() {
    if (dropped_ && seteuid(user_) != 0) _exit(1);
  }
  bool effective() const { return geteuid() != 0; }

 private:
  uid_t user_;
  bool dropped_ = false;
};

}  // namespace birkhoff::test
