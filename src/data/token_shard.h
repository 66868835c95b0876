// Documents as token ids, end to end, every one closed by the end token. Tokenizing is done once: shards lie in a cache
// under a name made of the content of data and tokenizer, so a changed file is never taken for the old one.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/mapped_file.h"
#include "text/tokenizer/tokenizer.h"

namespace birkhoff::data {

struct Tokenization {
  std::shared_ptr<const text::Tokenizer> tokenizer;  // opened from a directory, with an end token
  std::string cache;                                 // directory of shards, created when missing; "": none are kept
  // Share of the documents rearranged for filling in the middle: begin prefix hole suffix end middle.
  double fim_rate = 0;
  uint64_t seed = 0;  // of that choice
  int threads = 1;
  std::function<void(const std::string&)> note = {};  // told when the cache cannot be written, which is no failure
};

class TokenShard {
 public:
  // path: as for_each_document. Throws Error: data that cannot be read, text that is not UTF-8 (named), no end token,
  // no fill-in-the-middle tokens.
  TokenShard(const std::string& path, const Tokenization& t);
  std::span<const int32_t> ids() const { return ids_; }
  std::span<const int64_t> starts() const { return starts_; }  // first id of every document, and the end
  bool cached() const { return file_.has_value(); }

 private:
  void tokenize(const std::string& path, const Tokenization& t);
  bool map(const std::string& file);
  void save(const std::string& file) const;  // throws Error
  std::vector<int32_t> own_ids_;
  std::vector<int64_t> own_starts_;
  std::optional<io::MappedFile> file_;
  std::span<const int32_t> ids_;
  std::span<const int64_t> starts_;
};

}  // namespace birkhoff::data
