// Speed of opening a model, of its prompt and of its decoding, with one pass over the mapped files beside it.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "infer/engine.h"

namespace birkhoff::infer {

struct InferLoad {
  int64_t prompt = 128;
  int64_t decode = 16;
  std::vector<int64_t> depths = {0};  // tokens that are read before the prompt, one measurement after another
  int64_t sessions = 1;               // that decode together behind the first depth; 1: no such measurement
};

// At every depth a prompt of synthetic tokens, then tokens decoded one by one behind it. A pass maps the files anew and
// reads every byte on all threads; opening makes an engine and a session and feeds one token. Both include the cost of
// the page tables; they take turns. Keys: docs/bench.md.
nlohmann::json bench_infer(const std::string& directory, EngineOptions options, const InferLoad& load);

}  // namespace birkhoff::infer
