#include "data/corpus.h"

#include <algorithm>

#include "core/rng.h"
#include "data/data_error.h"
#include "data/documents.h"

namespace birkhoff::data {
namespace {}  // namespace

Corpus::Source Corpus::open_source(const std::string& argument, const Tokenization* tokens) {
  Source s;
  std::tie(s.path, s.weight) = split_weight(argument);
  if (tokens) {
    s.shard.emplace(s.path, *tokens);
    s.start.assign(s.shard->starts().begin(), s.shard->starts().end());
    if (s.size() == 0) data_error(s.path + ": is empty");
    s.train_end = s.size();
    return s;
  }
  int64_t total = 0;
  for (const std::string& file : document_files(s.path)) {
    io::MappedFile mapped(file);
    if (mapped.bytes().empty()) continue;
    s.start.push_back(total);
    total += static_cast<int64_t>(mapped.bytes().size());
    s.files.push_back(std::move(mapped));
  }
  s.start.push_back(total);
  if (total == 0) data_error(s.path + ": is empty");
  s.train_end = total;
  return s;
}

Corpus::Corpus(const std::vector<std::string>& training, const std::vector<std::string>& validation, int64_t seq_len,
               uint64_t seed, const Tokenization* tokens)
    : seq_len_(seq_len), seed_(seed) {
  const std::string unit = tokens ? " tokens " : " bytes ";
  const auto require = [&](const Source& s, int64_t have, const char* part) {
    if (have < seq_len + 1)
      data_error(s.path + ": " + std::to_string(have) + unit + part + ", a window of seq_len " +
                     std::to_string(seq_len) + " needs " + std::to_string(seq_len + 1),
                 "give more data or a smaller seq_len");
  };
  for (const auto& a : validation) {
    validation_.push_back(open_source(a, tokens));
    require(validation_.back(), validation_.back().size(), "to validate");
  }
  for (const auto& a : training) {
    Source s = open_source(a, tokens);
    if (validation.empty()) {
      const int64_t held_back = std::max(s.size() / 20, seq_len + 1);
      s.train_end = s.val_begin = std::max<int64_t>(0, s.size() - held_back);
    }
    require(s, s.train_end, "to train on");
    training_.push_back(std::move(s));
  }
}

void Corpus::append_window(const Source& s, int64_t at, Batch& b) const {
  const auto row_start = static_cast<int32_t>(b.ids.size());
  b.sequence_start.push_back(row_start);
  auto document = static_cast<size_t>(std::upper_bound(s.start.begin(), s.start.end(), at) - s.start.begin()) - 1;
  int32_t first = row_start;
  b.segment_start.push_back(first);
  for (int64_t i = 0; i < seq_len_; ++i) {
    const auto flat = row_start + static_cast<int32_t>(i);
    if (at + i == s.start[document + 1]) {
      ++document;
      first = flat;
      b.segment_start.push_back(first);
    }
    b.ids.push_back(s.token(at + i, document));
    b.position.push_back(flat - first);
    b.first_key.push_back(first);
    b.labels.push_back(at + i + 1 < s.start[document + 1] ? s.token(at + i + 1, document) : kIgnoreLabel);
  }
  ++b.rows;
}

Batch Corpus::training_batch(int64_t step, int64_t batch_size, int64_t first_row, int64_t rows) const {
  BK_CHECK(!training_.empty());
  Batch b;
  b.seq_len = seq_len_;
  double total_weight = 0;
  for (const Source& s : training_) total_weight += s.weight;
  for (int64_t row = first_row; row < first_row + rows; ++row) {
    const auto draw = static_cast<uint64_t>(step * batch_size + row);
    size_t source = 0;
    if (training_.size() > 1) {
      double u = Rng(seed_, 0x50c3).uniform(draw) * total_weight;
      while (source + 1 < training_.size() && u >= training_[source].weight) u -= training_[source++].weight;
    }
    const Source& s = training_[source];
    const auto span = static_cast<uint64_t>(s.train_end - seq_len_);
    append_window(s, static_cast<int64_t>(mix64((seed_ << 40) + draw) % span), b);
  }
  return b;
}

int64_t Corpus::validation_windows() const {
  int64_t n = 0;
  for (const auto* list : {&training_, &validation_})
    for (const Source& s : *list)
      if (list == &validation_ || validation_.empty()) n += (s.size() - s.val_begin - 1) / seq_len_;
  return n;
}

int64_t Corpus::training_bytes() const {
  int64_t n = 0;
  for (const Source& s : training_) n += s.train_end;
  return n;
}

std::vector<Batch> Corpus::validation_batches(int64_t rows, int64_t limit) const {
  const std::vector<Source>& sources = validation_.empty() ? training_ : validation_;
  const int64_t all = validation_windows(), used = limit > 0 ? std::min(limit, all) : all;
  std::vector<Batch> batches;
  int64_t window = 0, taken = 0;
  for (const Source& s : sources) {
    for (int64_t at = s.val_begin; at + seq_len_ < s.size(); at += seq_len_, ++window) {
      if (taken >= used || window != taken * all / used) continue;
      if (batches.empty() || batches.back().rows == rows) {
        batches.emplace_back();
        batches.back().seq_len = seq_len_;
      }
      append_window(s, at, batches.back());
      ++taken;
    }
  }
  return batches;
}

}  // namespace birkhoff::data
