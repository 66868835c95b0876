// What training and evaluation read: rows of tokens with labels, and where they come from.
#pragma once
#include <cstdint>
#include <vector>

#include "core/label.h"

namespace birkhoff::data {

// rows sequences of seq_len tokens, flattened.
struct Batch {
  int64_t rows = 0, seq_len = 0;
  std::vector<int32_t> ids;
  std::vector<int32_t>
      labels;  // the next token; kIgnoreLabel where it belongs to another document or is not to be learnt
  std::vector<int32_t> position;        // within the document, from the start of the row or of the document
  std::vector<int32_t> first_key;       // first flat index the token may attend to
  std::vector<int32_t> segment_start;   // flat indices where a row or a document begins
  std::vector<int32_t> sequence_start;  // flat index of every row
};

class BatchSource {
 public:
  virtual ~BatchSource() = default;
  // Rows first_row .. first_row+rows-1 of step `step`, of batch_size rows in all: a pure function of (seed, step, row).
  virtual Batch training_batch(int64_t step, int64_t batch_size, int64_t first_row, int64_t rows) const = 0;
  // The validation part in a fixed order, `rows` to a batch (the last may have fewer). limit > 0: that many rows spread
  // evenly over all, always the same; 0: all.
  virtual std::vector<Batch> validation_batches(int64_t rows, int64_t limit) const = 0;
};

}  // namespace birkhoff::data
