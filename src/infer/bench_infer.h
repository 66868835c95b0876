// Speed of opening a model, of its prompt and of its decoding, with one pass over the mapped files beside it.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "infer/engine.h"

namespace birkhoff::infer {

// Prompts of `prompt` synthetic tokens, then `decode` tokens one by one. A pass maps the files anew and reads every
// byte on all threads; opening makes an engine and a session and feeds one token. Both include the cost of the page
// tables; they take turns. Keys: docs/bench.md.
nlohmann::json bench_infer(const std::string& directory, EngineOptions options, int64_t prompt, int64_t decode);

}  // namespace birkhoff::infer
