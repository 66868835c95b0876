// Files as token batches. Bytes are tokens, or a tokenizer's ids with an end token after every document; a file is a document; rows are windows of the concatenated documents of one source, in which
// attention and positions restart where a document begins.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/token_shard.h"
#include "io/mapped_file.h"

namespace birkhoff::data {

// rows sequences of seq_len tokens, flattened.
struct Batch {
  int64_t rows = 0, seq_len = 0;
  std::vector<int32_t> ids;
  std::vector<int32_t> labels;          // the next token; kIgnoreLabel where it belongs to another document
  std::vector<int32_t> position;        // within the document, from the start of the row or of the document
  std::vector<int32_t> first_key;       // first flat index the token may attend to
  std::vector<int32_t> segment_start;   // flat indices where a row or a document begins
  std::vector<int32_t> sequence_start;  // flat index of every row
};
inline constexpr int32_t kIgnoreLabel = -100;  // as in ops/cross_entropy.h

class Corpus {
 public:
  // training, validation: PATH[@WEIGHT]; a file, or a folder whose regular files in name order are documents. Without validation sources the
  // last 5 % of every training source validate. tokens: nullptr for bytes; then also .jsonl with "text". Throws Error: missing, unreadable, empty or
  // too short data, bad weight; what TokenShard refuses.
  Corpus(const std::vector<std::string>& training, const std::vector<std::string>& validation, int64_t seq_len, uint64_t seed, const Tokenization* tokens = nullptr);

  // Rows first_row .. first_row+rows-1 of step `step`, of batch_size rows in all: a pure function of (seed, step, row).
  Batch training_batch(int64_t step, int64_t batch_size, int64_t first_row, int64_t rows) const;

  // Consecutive non-overlapping windows of the validation part, in order, `rows` to a batch (the last may have fewer). limit > 0: that many
  // windows spread evenly over all, always the same; 0: all.
  std::vector<Batch> validation_batches(int64_t rows, int64_t limit) const;
  int64_t validation_windows() const;
  int64_t training_bytes() const;

 private:
  struct Source {
    std::string path;
    double weight = 1;
    std::vector<io::MappedFile> files;
    std::optional<TokenShard> shard;  // instead of files
    std::vector<int64_t> start;  // first token of each document in the concatenation, and the end
    int64_t train_end = 0;       // tokens [0, train_end) train
    int64_t val_begin = 0;       // tokens [val_begin, end) validate
    int64_t size() const { return start.back(); }
    int32_t token(int64_t at, size_t document) const {
      return shard ? shard->ids()[static_cast<size_t>(at)] : files[document].bytes()[static_cast<size_t>(at - start[document])];
    }
  };
  static Source open_source(const std::string& argument, const Tokenization* tokens);
  void append_window(const Source& s, int64_t at, Batch& b) const;

  int64_t seq_len_;
  uint64_t seed_;
  std::vector<Source> training_, validation_;
};

}  // namespace birkhoff::data
