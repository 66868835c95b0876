// Programs that nobody trusts, each in a process of its own that can read an interpreter, write to a temporary folder
// and nothing else.
//
// A filter of system calls (seccomp) always holds: no other process, no network, no signals to others. Files are held
// by a mount namespace whose root is the interpreter's folders, by Landlock, or both, whichever the kernel gives to
// this user; without either there is no sandbox. docs/eval.md has the list.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace birkhoff::eval {

struct SandboxLimits {
  double cpu_seconds = 4, wall_seconds = 20;  // the verdict is the processor's time: load does not change it
  int64_t memory_bytes = int64_t{1} << 30, file_bytes = int64_t{16} << 20, output_bytes = int64_t{64} << 10;
};

// passed: ran to its end without an exception that leaves it. failed: an exception, of sys.exit() too, or os._exit().
// timeout: of the processor's time or the wall clock. killed: by a signal, such as of a broken stack.
enum class ProgramEnd : uint8_t { passed, failed, timeout, killed };
const char* program_end_name(ProgramEnd e);

struct ProgramResult {
  ProgramEnd end = ProgramEnd::failed;
  std::string output;  // of both streams, the first output_bytes
  double cpu_seconds = 0;
};

// What a sandbox may use of what a kernel has; tests take parts away.
struct SandboxMeans {
  bool user_namespaces = true, namespaces = true, landlock = true;
};

struct Confinement;

class Sandbox {
 public:
  // interpreter: "python3" or a path. Throws Error: no such program; what the kernel does not give, and what to do.
  explicit Sandbox(const std::string& interpreter = "python3", const SandboxLimits& limits = {},
                   const SandboxMeans& means = {});
  // Python source in UTF-8. Thread-safe. Throws Error when the system has no room for a process.
  ProgramResult run(const std::string& program) const;
  // All of them, `at_once` at a time, in their order.
  std::vector<ProgramResult> run_all(const std::vector<std::string>& programs, int at_once) const;
  const std::vector<std::string>& protections() const { return protections_; }  // in use, to be said to users

 private:
  std::shared_ptr<const Confinement> confinement_;
  std::vector<std::string> protections_;
};

}  // namespace birkhoff::eval
