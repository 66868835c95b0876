// Encodes files on request, so that tokenizer_bench.py can run this program and the reference library in turns. A line
// of standard input is
//   open PATH            -> milliseconds, resident MiB before and after
//   encode FILE THREADS  -> seconds for the file cut into pieces of 16 KiB (text in memory), tokens
//   whole FILE IDS       -> seconds for the file as one text, tokens; the ids go into the file IDS as 32-bit numbers
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "text/tokenizer/tokenizer.h"

namespace {

using birkhoff::text::Tokenizer;
constexpr size_t kPieceBytes = 16 << 10;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double resident_mib() {
  std::ifstream in("/proc/self/statm");
  long total = 0, resident = 0;
  in >> total >> resident;
  return static_cast<double>(resident) * 4096 / (1 << 20);
}

std::string content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string_view> pieces_of(const std::string& text) {
  std::vector<std::string_view> pieces;
  for (size_t at = 0; at < text.size();) {
    size_t end = std::min(at + kPieceBytes, text.size());
    while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
    pieces.emplace_back(text.data() + at, end - at);
    at = end;
  }
  return pieces;
}

size_t encode(const Tokenizer& t, const std::vector<std::string_view>& pieces, int threads) {
  size_t tokens = 0;
  if (threads == 1) {
    for (const auto p : pieces) tokens += t.encode(p).size();
  } else {
    for (const auto& ids : t.encode_batch(pieces, threads)) tokens += ids.size();
  }
  return tokens;
}

void report(std::chrono::steady_clock::time_point start, size_t tokens) {
  std::printf("%.6f %zu\n", seconds_since(start), tokens);
}

}  // namespace

int main() {
  std::shared_ptr<const Tokenizer> t;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream in(line);
    std::string verb, argument;
    in >> verb >> argument;
    try {
      if (verb == "open") {
        const double before = resident_mib();
        const auto start = std::chrono::steady_clock::now();
        t = Tokenizer::open(argument);
        const double ms = seconds_since(start) * 1e3;
        std::printf("%.2f %.2f %.2f\n", ms, before, resident_mib());
      } else if (verb == "encode") {
        int threads = 1;
        in >> threads;
        const std::string text = content_of(argument);
        const auto pieces = pieces_of(text);
        const auto start = std::chrono::steady_clock::now();
        report(start, encode(*t, pieces, threads));
      } else {
        std::string out;
        in >> out;
        const std::string text = content_of(argument);
        const auto start = std::chrono::steady_clock::now();
        const std::vector<int32_t> ids = t->encode(text);
        const double seconds = seconds_since(start);
        std::ofstream(out, std::ios::binary)
            .write(reinterpret_cast<const char*>(ids.data()),
                   static_cast<std::streamsize>(ids.size() * sizeof(int32_t)));
        std::printf("%.6f %zu\n", seconds, ids.size());
      }
    } catch (const birkhoff::Error& e) {
      std::printf("error %s\n", e.what());
    }
    std::fflush(stdout);
  }
}
