// Programs that nobody trusts, each in a process of its own that can read an interpreter, write to a temporary folder
// and nothing else.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace birkhoff::eval {

struct SandboxLimits {
  double cpu_seconds = 4, wall_seconds = 20;  // the verdict is the processor's time: load does not change it
  int64_t memory_bytes = int64_t{1} << 30, file_bytes = int64_t{16} << 20, output_bytes = int64_t{64} << 10;
  int processes = 1;
};

enum class ProgramEnd : uint8_t { passed, failed, timeout, killed };
const char* program_end_name(ProgramEnd e);

struct ProgramResult {
  ProgramEnd end = ProgramEnd::failed;
  std::string output;  // of both streams, the first output_bytes
  double cpu_seconds = 0;
};

class Sandbox {
 public:
  // interpreter: "python3" or a path. Throws Error: no such program; what the kernel does not give, and what to do.
  explicit Sandbox(const std::string& interpreter = "python3", const SandboxLimits& limits = {});
  // Thread-safe.
  ProgramResult run(const std::string& program) const;
  // All of them, `at_once` at a time, in their order.
  std::vector<ProgramResult> run_all(const std::vector<std::string>& programs, int at_once) const;
  const std::vector<std::string>& protections() const { return protections_; }  // in use, to be said to users

 private:
  std::string interpreter_;
  SandboxLimits limits_;
  std::vector<std::string> protections_;
};

}  // namespace birkhoff::eval
