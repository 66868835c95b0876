// What the tests of further training share: small runs, their batches, all tensors of a state.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "support/batches.h"
#include "support/small_model.h"
#include "train/train_state.h"

namespace birkhoff::test {

inline train::RunConfig further_config(bool mla = true) {
  train::RunConfig c;
  c.model = small_config("plain", 1, mla);
  model::validate(c.model);
  c.train.seq_len = 24, c.train.batch_size = 2, c.train.dtype = DType::f32;
  c.train.lr = 1e-2, c.train.steps = 20, c.train.bias_update_speed = 1e-2;
  return c;
}

inline train::RunConfig lora_config(const std::string& targets = "") {
  train::RunConfig c = further_config();
  c.train.lora_rank = 3, c.train.lora_alpha = 6, c.train.lora_targets = targets;
  return c;
}

inline std::vector<data::Batch> batch(uint64_t step, const train::RunConfig& c) {
  data::Batch b;
  b.rows = c.train.batch_size, b.seq_len = c.train.seq_len;
  for (int64_t t = 0; t < b.rows * b.seq_len; ++t) {
    const auto at = static_cast<int32_t>(t % b.seq_len), first = static_cast<int32_t>(t - at);
    if (at == 0) b.segment_start.push_back(first), b.sequence_start.push_back(first);
    b.position.push_back(at);
    b.first_key.push_back(first);
    b.ids.push_back(
        static_cast<int32_t>(Rng(3, step).bits(static_cast<uint64_t>(t)) % static_cast<uint64_t>(c.model.vocab_size)));
    b.labels.push_back(static_cast<int32_t>((b.ids.back() * 7 + 3) % c.model.vocab_size));
  }
  return {b};
}

inline void steps(train::TrainState& s, int64_t from, int64_t to) {
  for (int64_t i = from; i < to; ++i) take_step(s, i, batch(static_cast<uint64_t>(i), s.config()));
}

// Bytes of every tensor, by name, adapters too.
inline std::map<std::string, std::vector<float>> tensors(const train::TrainState& s) {
  std::map<std::string, std::vector<float>> t;
  for (const auto& p : s.trainable().parameters) t[p.info.name].assign(p.weight, p.weight + p.info.size());
  return t;
}

inline std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& e) {
    return std::string(e.what()) + " " + e.hint();
  }
  return "";
}

}  // namespace birkhoff::test
