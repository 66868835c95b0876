// A program started beside this one.
#pragma once
#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace birkhoff::lab {

// The child ends with this process, whatever ends it. It stays in the process group, so a terminal's Ctrl-C and Ctrl-Z
// reach both.
class ChildProcess {
 public:
  // argv[0] is the program's path. Standard output and error go to the file `log`, which begins anew. Throws Error when
  // it cannot be started.
  ChildProcess(const std::vector<std::string>& argv, const std::string& log);
  ~ChildProcess();  // kills it when it still runs
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&&) = delete;

  // Its exit code once it has ended (128 + signal when a signal ended it).
  std::optional<int> exit_code();
  void stop();  // SIGTERM

 private:
  pid_t pid_ = -1;
  std::optional<int> code_;
};

// The path of the running program.
std::string own_program();

}  // namespace birkhoff::lab
