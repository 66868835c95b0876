// Files as token batches. Bytes are tokens, or a tokenizer's ids with an end token after every document; a file is a
// document; rows are windows of the concatenated documents of one source, in which attention and positions restart
// where a document begins.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/batch.h"
#include "data/token_shard.h"
#include "io/mapped_file.h"

namespace birkhoff::data {

class Corpus final : public BatchSource {
 public:
  // training, validation: PATH[@WEIGHT]; a file, or a folder whose regular files in name order are documents. Without
  // validation sources the last 5 % of every training source validate. tokens: nullptr for bytes; then also .jsonl with
  // "text". Throws Error: missing, unreadable, empty or too short data, bad weight; what TokenShard refuses.
  Corpus(const std::vector<std::string>& training, const std::vector<std::string>& validation, int64_t seq_len,
         uint64_t seed, const Tokenization* tokens = nullptr);

  Batch training_batch(int64_t step, int64_t batch_size, int64_t first_row, int64_t rows) const override;
  // Rows are consecutive non-overlapping windows.
  std::vector<Batch> validation_batches(int64_t rows, int64_t limit) const override;
  int64_t validation_windows() const;
  int64_t training_bytes() const;

 private:
  struct Source {
    std::string path;
    double weight = 1;
    std::vector<io::MappedFile> files;
    std::optional<TokenShard> shard;  // instead of files
    std::vector<int64_t> start;       // first token of each document in the concatenation, and the end
    int64_t train_end = 0;            // tokens [0, train_end) train
    int64_t val_begin = 0;            // tokens [val_begin, end) validate
    int64_t size() const { return start.back(); }
    int32_t token(int64_t at, size_t document) const {
      return shard ? shard->ids()[static_cast<size_t>(at)]
                   : files[document].bytes()[static_cast<size_t>(at - start[document])];
    }
  };
  static Source open_source(const std::string& argument, const Tokenization* tokens);
  void append_window(const Source& s, int64_t at, Batch& b) const;

  int64_t seq_len_;
  uint64_t seed_;
  std::vector<Source> training_, validation_;
};

}  // namespace birkhoff::data
