#include "eval/sandbox/child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstring>
#include <optional>
#include <system_error>

#include "core/error.h"
#include "eval/sandbox/work_folder.h"
#include "io/user_files.h"

namespace birkhoff::eval {
namespace {

using Clock = std::chrono::steady_clock;
using io::Descriptor;

// Descriptor 3 holds a token and the program, 4 takes the token back. While the program runs the token lies on the
// interpreter's stack, where no name leads: neither os._exit nor an exception nor a guess gets past `end`.
constexpr const char* kWrapper = R"py(
import os
def end(write, leave, token, ended):
    write(4, token)
    leave(0)
end(os.write, os._exit, os.read(3, 16), exec(open(3, 'rb').read().decode(), {}))
)py";
constexpr size_t kTokenBytes = 16;

[[noreturn]] void refused(const char* step, int error) {
  throw Error("sandbox", std::string(step) + ": " + std::generic_category().message(error), "", ExitCode::failed);
}

// The same above the numbers that the child's own descriptors get.
Descriptor high(Descriptor low, const char* step) {
  const int moved = low.get() < 0 ? -1 : fcntl(low.get(), F_DUPFD_CLOEXEC, 10);
  if (moved < 0) refused(step, errno);
  return Descriptor(moved);
}

struct Pipe {
  Pipe() {
    int ends[2] = {-1, -1};
    if (pipe2(ends, O_CLOEXEC) != 0) refused("pipe", errno);
    Descriptor first(ends[0]), second(ends[1]);
    read = high(std::move(first), "pipe");
    write = high(std::move(second), "pipe");
  }
  Descriptor read, write;
};

std::string random_token() {
  std::string token(kTokenBytes, '\0');
  if (getrandom(token.data(), token.size(), 0) != static_cast<ssize_t>(token.size())) refused("getrandom", errno);
  return token;
}

Descriptor memory_file(const std::string& content) {
  Descriptor file = high(Descriptor(memfd_create("program", MFD_CLOEXEC)), "memfd_create");
  if (!io::write_all(file.get(), content) || lseek(file.get(), 0, SEEK_SET) != 0) refused("memfd", errno);
  return file;
}

// Everything a child and its parent share.
struct Launch {
  explicit Launch(const Confinement& c, const std::string& program)
      : confinement(c), token(random_token()), source(memory_file(token + program)) {
    nothing = high(Descriptor(open("/dev/null", O_RDONLY | O_CLOEXEC)), "open of /dev/null");
  }
  const Confinement& confinement;
  std::string token;
  Descriptor source, nothing;
  Pipe output, result, failure, go;
  std::optional<WorkFolder> folder;
};

// Between fork and exec: only what is safe after a fork of one thread among many.
[[noreturn]] void become_program(Launch& l) {
  for (int s = 1; s < 65; ++s) signal(s, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  setsid();
  // Closed without a word when the parent is gone.
  close(l.go.write.get());
  char word = 0;
  if (read(l.go.read.get(), &word, 1) != 1) _exit(126);
  ConfinementFailure f{"dup2", 0};
  if (dup2(l.nothing.get(), 0) == 0 && dup2(l.output.write.get(), 1) == 1 && dup2(l.output.write.get(), 2) == 2 &&
      dup2(l.source.get(), 3) == 3 && dup2(l.result.write.get(), 4) == 4 &&
      syscall(SYS_close_range, 5, ~0u, CLOSE_RANGE_CLOEXEC) == 0) {
    f = enter(l.confinement, l.folder ? l.folder->path().c_str() : "");
  } else {
    f.error = errno;
  }
  if (!f.step) {
    const char* const arguments[] = {
        l.confinement.interpreter.executable.c_str(), "-S", "-B", "-u", "-c", kWrapper, nullptr};
    // The order of sets, and with it some verdicts, would differ from run to run.
    const char* const environment[] = {"PYTHONHASHSEED=0", nullptr};
    execve(arguments[0], const_cast<char* const*>(arguments), const_cast<char* const*>(environment));
    f = {"exec of the interpreter", errno};
  }
  if (write(l.failure.write.get(), &f, sizeof f) < 0) _exit(126);
  _exit(127);
}

pid_t fork_child(Launch& l) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // no handler of the parent runs in the child
  const long child = syscall(SYS_clone, clone_flags(l.confinement.means) | SIGCHLD, nullptr, nullptr, nullptr, nullptr);
  if (child == 0) become_program(l);
  const int error = errno;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (child < 0) refused(l.confinement.means.namespaces ? "clone into namespaces" : "fork", error);
  return static_cast<pid_t>(child);
}

// Kills and reaps it, whatever happens to its owner.
class Child {
 public:
  explicit Child(pid_t id) : id_(id) {}
  ~Child() { reap(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  pid_t id() const { return id_; }
  void kill() const {
    ::kill(-id_, SIGKILL);
    ::kill(id_, SIGKILL);
  }
  int reap() {
    if (id_ > 0) kill();
    while (id_ > 0 && wait4(id_, &status_, 0, &usage_) < 0 && errno == EINTR) {
    }
    id_ = 0;
    return status_;
  }
  double cpu_seconds() const {
    const auto seconds = [](const timeval& t) {
      return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
    };
    return seconds(usage_.ru_utime) + seconds(usage_.ru_stime);
  }

 private:
  pid_t id_;
  int status_ = 0;
  rusage usage_{};
};

void write_id_maps(const Launch& l, pid_t child) {
  if (!l.confinement.means.user_namespace) return;
  const std::string process = "/proc/" + std::to_string(child) + "/";
  const auto write = [&](const char* name, const std::string& text) {
    const Descriptor file(open((process + name).c_str(), O_WRONLY | O_CLOEXEC));
    if (file.get() < 0 || !io::write_all(file.get(), text)) refused("map of users", errno);
  };
  const std::pair<std::string, std::string> maps = id_maps(l.confinement.means);
  if (!l.confinement.means.other_user) write("setgroups", "deny");
  write("uid_map", maps.first);
  write("gid_map", maps.second);
}

// Takes what there is; false at the end.
bool drain(int fd, std::string& kept, size_t most) {
  char block[16384];
  while (true) {
    const ssize_t n = read(fd, block, sizeof block);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return n < 0;
    kept.append(block, std::min(static_cast<size_t>(n), most - kept.size()));
  }
}

// Until the program has ended; true when the wall clock ended it.
bool supervise(const Launch& l, const Child& child, std::string& output) {
  const SandboxLimits& limits = l.confinement.limits;
  const Descriptor ended(static_cast<int>(syscall(SYS_pidfd_open, child.id(), 0)));
  if (ended.get() < 0) refused("pidfd_open", errno);
  const auto until = Clock::now() + std::chrono::duration<double>(limits.wall_seconds);
  pollfd watched[] = {{ended.get(), POLLIN, 0}, {l.output.read.get(), POLLIN, 0}};
  while (true) {
    const double left = std::chrono::duration<double>(until - Clock::now()).count();
    if (left <= 0) return true;
    if (poll(watched, 2, static_cast<int>(std::ceil(std::min(left, 3600.0) * 1000))) < 0 && errno != EINTR)
      refused("poll", errno);
    if (watched[1].revents && !drain(watched[1].fd, output, static_cast<size_t>(limits.output_bytes)))
      watched[1].fd = -1;
    if (watched[0].revents) return false;
  }
}

ProgramEnd verdict(const Launch& l, int status, double cpu_seconds, bool late) {
  const double most = l.confinement.limits.cpu_seconds;
  // The kernel kills at whole seconds, and counts them a little apart from what it reports.
  const bool cpu_kill = WIFSIGNALED(status) && cpu_seconds > std::ceil(most) - 0.1;
  if (late || cpu_seconds > most || cpu_kill) return ProgramEnd::timeout;
  std::string returned;
  drain(l.result.read.get(), returned, kTokenBytes + 1);
  if (returned == l.token) return ProgramEnd::passed;
  return WIFSIGNALED(status) ? ProgramEnd::killed : ProgramEnd::failed;
}

}  // namespace

ProgramResult run_confined(const Confinement& confinement, const std::string& program) {
  Launch l(confinement, program);
  if (!confinement.means.namespaces) l.folder.emplace(confinement.means.other_user);
  for (const Pipe* p : {&l.output, &l.result}) fcntl(p->read.get(), F_SETFL, O_NONBLOCK);
  Child child(fork_child(l));
  for (Pipe* p : {&l.output, &l.result, &l.failure}) p->write = Descriptor();
  write_id_maps(l, child.id());
  ConfinementFailure f;
  if (!io::write_all(l.go.write.get(), "!")) refused("pipe", errno);
  l.go.write = Descriptor();
  if (read(l.failure.read.get(), &f, sizeof f) == sizeof f) refused(f.step, f.error);
  ProgramResult r;
  const bool late = supervise(l, child, r.output);
  const int status = child.reap();
  drain(l.output.read.get(), r.output, static_cast<size_t>(confinement.limits.output_bytes));
  r.cpu_seconds = child.cpu_seconds();
  r.end = verdict(l, status, r.cpu_seconds, late);
  return r;
}

}  // namespace birkhoff::eval
