#include "fuzz/mutate.h"

#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "core/error.h"
#include "core/rng.h"
#include "fuzz/live_memory.h"

namespace birkhoff::fuzz {
namespace {

constexpr double kSeconds = 1;
constexpr double kLargeSeconds = 60;  // of megabytes, under the sanitizers
constexpr int kHangSeconds = 10;      // after which an input that does not come back is given up
constexpr size_t kBytes = size_t{64} << 20;

// Random choices of one mutation.
class Choices {
 public:
  explicit Choices(uint64_t number) : rng_(0xf022, number) {}
  uint64_t below(uint64_t n) { return n ? rng_.bits(next_++) % n : 0; }

 private:
  Rng rng_;
  uint64_t next_ = 0;
};

void grow_a_number(std::string& s, Choices& c) {
  static const char* const kNumbers[] = {"-1",
                                         "0",
                                         "1",
                                         "4294967295",
                                         "4294967296",
                                         "9223372036854775807",
                                         "9223372036854775808",
                                         "18446744073709551615",
                                         "18446744073709551616",
                                         "1e9",
                                         "0.5",
                                         "-0",
                                         "1e999",
                                         "00",
                                         "2147483648",
                                         "-9223372036854775809"};
  std::vector<size_t> starts;
  for (size_t i = 0; i < s.size(); ++i)
    if (s[i] >= '0' && s[i] <= '9' && (i == 0 || s[i - 1] < '0' || s[i - 1] > '9')) starts.push_back(i);
  if (starts.empty()) return;
  const size_t at = starts[c.below(starts.size())];
  size_t end = at;
  while (end < s.size() && s[end] >= '0' && s[end] <= '9') ++end;
  s.replace(at, end - at, kNumbers[c.below(std::size(kNumbers))]);
}

void mutate_once(std::string& s, const std::vector<std::string>& seeds, const std::vector<std::string>& dictionary,
                 Choices& c) {
  const size_t at = c.below(s.size() + 1), n = 1 + c.below(std::min<uint64_t>(64, s.size() + 1)), left = s.size() - at;
  switch (c.below(12)) {
    case 0:
      if (left) s[at] = static_cast<char>(s[at] ^ (1 << c.below(8)));
      break;
    case 1:
      if (left) s[at] = static_cast<char>(c.below(256));
      break;
    case 2:
      s.insert(at, 1, static_cast<char>(c.below(256)));
      break;
    case 3:
      s.erase(at, n);
      break;
    case 4:
      s.insert(at, s.substr(c.below(s.size() + 1), n));
      break;
    case 5:
      s.resize(at);
      break;
    case 6: {
      const std::string& other = seeds[c.below(seeds.size())];
      s.replace(at, n, other, c.below(other.size() + 1), 1 + c.below(256));
      break;
    }
    case 7:
      grow_a_number(s, c);
      break;
    case 8: {
      static const char kOpen[] = "[{(\"<";
      s.insert(at, std::string(1 + c.below(c.below(8) ? 8 : 20000), kOpen[c.below(5)]));
      break;
    }
    case 9:
      if (!dictionary.empty()) s.insert(at, dictionary[c.below(dictionary.size())]);
      break;
    case 10:
      for (size_t i = 0; i < 8 && i < left; ++i)
        s[at + i] = static_cast<char>(c.below(3) == 0 ? c.below(256) : c.below(2) * 255);
      break;
    default:
      std::swap_ranges(s.begin() + static_cast<std::ptrdiff_t>(at),
                       s.begin() + static_cast<std::ptrdiff_t>(at + std::min(n, left)),
                       s.begin() + static_cast<std::ptrdiff_t>(c.below(s.size() - std::min(n, left) + 1)));
      break;
  }
}

std::string bad_path;
std::string current;  // the input that is being looked at, for the handlers of signals

void keep_input() {
  std::ofstream(bad_path, std::ios::binary) << current;
  std::fprintf(stderr, "the input is in %s\n", bad_path.c_str());
}

extern "C" void on_hang(int) {
  std::fprintf(stderr, "an input did not come back\n");
  keep_input();
  std::_Exit(1);
}

// Processor time, so that a busy machine or a stopped process is no hang; no parser waits for anything.
double seconds_used() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}
void give_up_after(int seconds) {
  const itimerval limit{{0, 0}, {seconds, 0}};
  setitimer(ITIMER_PROF, &limit, nullptr);
}

// What was wrong with the way the input was handled, or "".
std::string judge(const Target& target, const std::string& input, double most_seconds = kSeconds) {
  current = input;
  give_up_after(static_cast<int>(most_seconds) + kHangSeconds);
  const double start = seconds_used();
  std::string wrong;
  live_memory::start(kBytes);
  try {
    target.run(input);
  } catch (const Error&) {
  } catch (const std::exception& e) {
    wrong = std::string("threw ") + e.what();
  }
  const size_t peak = live_memory::stop();
  give_up_after(0);
  const double seconds = seconds_used() - start;
  if (seconds > most_seconds) wrong = "took " + std::to_string(seconds) + " s";
  if (peak > kBytes) wrong = "held " + std::to_string(peak >> 20) + " MiB";
  return wrong;
}

}  // namespace

std::string mutate(const std::vector<std::string>& seeds, const std::vector<std::string>& dictionary, uint64_t number) {
  Choices c(number);
  std::string s = seeds[c.below(seeds.size())];
  for (uint64_t left = 1 + c.below(c.below(4) ? 4 : 24); left > 0; --left) mutate_once(s, seeds, dictionary, c);
  return s;
}

std::string repeated(const std::string& text, size_t bytes) {
  std::string all;
  for (uint64_t n = 0; all.size() < bytes; ++n)
    for (const char c : text) c == '#' ? all += std::to_string(n) : all += c;
  return all;
}

int run(int argc, char** argv, const Target& target) {
  bad_path = std::string("fuzz_") + target.name + ".bad";
  std::signal(SIGPROF, on_hang);
  if (argc == 3 && std::string(argv[1]) == "--input") {
    std::ifstream in(argv[2], std::ios::binary);
    const std::string wrong = judge(target, {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()});
    std::printf("%s\n", wrong.empty() ? "handled" : wrong.c_str());
    return wrong.empty() ? 0 : 1;
  }
  const uint64_t count = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 200000,
                 first = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 0;
  for (const std::string& seed : target.seeds) target.run(seed);  // what is mutated is good
  for (size_t i = 0; i < target.large.size(); ++i) {
    const std::string wrong = judge(target, target.large[i](), kLargeSeconds);
    if (wrong.empty()) continue;
    std::fprintf(stderr, "%s: large input %zu %s\n", target.name, i, wrong.c_str());
    keep_input();
    return 1;
  }
  for (uint64_t i = first; i < first + count; ++i) {
    const std::string wrong = judge(target, mutate(target.seeds, target.dictionary, i));
    if (wrong.empty()) continue;
    std::fprintf(stderr, "%s: input %llu %s\n", target.name, static_cast<unsigned long long>(i), wrong.c_str());
    keep_input();
    return 1;
  }
  std::printf("%s: %llu inputs handled\n", target.name, static_cast<unsigned long long>(count));
  return 0;
}

MemoryFile::MemoryFile() : fd_(memfd_create("fuzz", MFD_CLOEXEC)) {
  if (fd_ < 0) throw std::runtime_error("memfd_create failed");
  path_ = "/proc/self/fd/" + std::to_string(fd_);
}
MemoryFile::~MemoryFile() { ::close(fd_); }
void MemoryFile::fill(const std::string& content) {
  if (ftruncate(fd_, 0) != 0 || pwrite(fd_, content.data(), content.size(), 0) != static_cast<ssize_t>(content.size()))
    throw std::runtime_error("the memory file could not be written");
}

}  // namespace birkhoff::fuzz
