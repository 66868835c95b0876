// Deterministic mutation fuzzing: one driver for every parser of bytes that strangers send.
//
//   fuzz_X [COUNT [FIRST]]    COUNT mutated inputs (default 200000), numbered from FIRST
//   fuzz_X --input FILE       one input as it is
//
// An input may be accepted or refused with Error. Anything else fails the run and leaves the input in fuzz_X.bad: a
// crash, another exception, more than a second of processor time, or more than 64 MiB of live memory (operator new)
// while it is looked at. Meant to run under the address and undefined sanitizers (cmake preset asan).
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace birkhoff::fuzz {

// Mutation number `number` of one of the seeds: bits flipped, bytes replaced, ranges removed, doubled, moved or taken
// from another seed, numbers grown, brackets nested, words of `dictionary` inserted. The same number always gives the
// same input.
std::string mutate(const std::vector<std::string>& seeds, const std::vector<std::string>& dictionary, uint64_t number);

struct Target {
  const char* name;
  std::vector<std::string> seeds;
  std::vector<std::string> dictionary;
  std::function<void(const std::string& input)> run;  // throws Error for an input that is refused
  std::vector<std::function<std::string()>> large =
      {};  // inputs near the limits of size, looked at once as they are, for the memory they take
};

// text repeated until it has about `bytes`, with every # replaced by the number of the repetition.
std::string repeated(const std::string& text, size_t bytes);

// main() of a fuzzer: 0 when every input was handled.
int run(int argc, char** argv, const Target& target);

// A file without a place on disk that holds one input at a time, for parsers that take a path.
class MemoryFile {
 public:
  MemoryFile();
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  const std::string& path() const { return path_; }
  void fill(const std::string& content);

 private:
  int fd_;
  std::string path_;
};

}  // namespace birkhoff::fuzz
