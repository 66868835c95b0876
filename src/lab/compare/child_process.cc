#include "lab/compare/child_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <utility>

#include "core/error.h"

namespace birkhoff::lab {
namespace {

constexpr int kNotStarted = 127;

// Between fork and exec only calls that are safe after a fork of a process with threads.
[[noreturn]] void become(char* const* argv, const char* log, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(kNotStarted);  // the parent ended before prctl
  const int out = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644),
            in = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (out < 0 || in < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0 || dup2(in, 0) < 0) _exit(kNotStarted);
  execv(argv[0], argv);
  _exit(kNotStarted);
}

}  // namespace

ChildProcess::ChildProcess(const std::vector<std::string>& argv, const std::string& log) {
  std::vector<char*> words;
  for (const std::string& a : argv) words.push_back(const_cast<char*>(a.c_str()));
  words.push_back(nullptr);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ < 0)
    throw Error("compare", std::string("cannot start a process: ") + std::strerror(errno),
                "free some memory or raise the limit of processes", ExitCode::failed);
  if (pid_ == 0) become(words.data(), log.c_str(), parent);
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept : pid_(std::exchange(other.pid_, -1)), code_(other.code_) {}

ChildProcess::~ChildProcess() {
  if (pid_ < 0 || code_) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

std::optional<int> ChildProcess::exit_code() {
  if (code_) return code_;
  int status = 0;
  const pid_t ended = waitpid(pid_, &status, WNOHANG);
  if (ended == 0) return std::nullopt;
  code_ = ended < 0 ? 1 :  // somebody else took its end: where SIGCHLD is ignored the system does
              WIFEXITED(status) ? WEXITSTATUS(status)
                                : 128 + WTERMSIG(status);
  return code_;
}

void ChildProcess::stop() {
  if (!code_) kill(pid_, SIGTERM);
}

std::string own_program() {
  std::error_code ec;
  const auto path = std::filesystem::read_symlink("/proc/self/exe", ec);
  if (ec)
    throw Error("compare", "/proc/self/exe: " + ec.message(),
                "runs are started as processes of the same program, which needs /proc", ExitCode::failed);
  return path.string();
}

}  // namespace birkhoff::lab
