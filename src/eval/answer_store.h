// What a model answered, on disk: a run that was killed goes on, and no request is computed twice.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "eval/continuations.h"
#include "io/user_files.h"

namespace birkhoff::eval {

// A request by everything that decides its answer, 32 hexadecimal digits. model: content hash and settings.
std::string request_key(std::string_view model, const Continuation& c);
std::string request_key(std::string_view model, std::span<const int32_t> prompt, const std::vector<std::string>& until,
                        int64_t max_tokens);

// One file of JSON lines: {"key", "logprob", "is_greedy"} of a continuation, {"key", "text", "tokens"} of a generated
// answer, each with "check", a checksum of the rest. One process at a time writes it.
class AnswerStore {
 public:
  // Reads what is there; lines that are damaged are passed over. Throws Error: not readable or writable.
  explicit AnswerStore(const std::string& path);

  struct Written {
    std::string text;
    int64_t tokens = 0;
  };
  const ContinuationScore* score(const std::string& key) const;
  const Written* text(const std::string& key) const;
  // Kept, and on its way to the disk, when this returns. Throws Error.
  void add(const std::string& key, const ContinuationScore& score);
  void add(const std::string& key, const Written& text);

  int64_t damaged() const { return damaged_; }  // lines
  const std::string& path() const { return path_; }

 private:
  void read(std::string_view line);
  void write(std::string line);
  std::string path_;
  io::Descriptor file_;
  int64_t damaged_ = 0;
  std::unordered_map<std::string, ContinuationScore> scores_;
  std::unordered_map<std::string, Written> texts_;
};

}  // namespace birkhoff::eval
