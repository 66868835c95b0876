// Batches for tests of training.
#pragma once
#include "core/rng.h"
#include "data/corpus.h"
#include "support/places.h"
#include "train/train_state.h"

namespace birkhoff::test {

// Rows of random ids below 97 and of labels that are a function of their ids, every row two documents.
inline data::Batch batch(uint64_t step, int64_t rows, int64_t seq_len) {
  data::Batch b;
  b.rows = rows, b.seq_len = seq_len;
  const Rng rng(9, step);
  std::vector<int32_t> starts, sequences;
  for (int64_t r = 0; r < rows; ++r) {
    const auto first = static_cast<int32_t>(r * seq_len);
    sequences.push_back(first);
    starts.push_back(first);
    starts.push_back(
        first + 1 +
        static_cast<int32_t>(rng.bits(1000 + static_cast<uint64_t>(r)) % static_cast<uint64_t>(seq_len - 1)));
  }
  const Packed at(rows * seq_len, starts, sequences);
  for (uint64_t t = 0; t < static_cast<uint64_t>(rows * seq_len); ++t) {
    b.ids.push_back(static_cast<int32_t>(rng.bits(t) % 97));
    b.labels.push_back(static_cast<int32_t>((b.ids.back() * 7 + 3) % 97));
  }
  b.position = at.position, b.first_key = at.first_key, b.segment_start = at.segment_start,
  b.sequence_start = at.sequence_start;
  return b;
}

// One step of next-token prediction.
inline train::StepOutcome take_step(train::TrainState& s, int64_t step, const std::vector<data::Batch>& parts) {
  s.accumulate(parts);
  return s.apply(step);
}

}  // namespace birkhoff::test
