// What `generate` prints: text or ids as they come, or a line of JSON at the end.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "infer/generation.h"

namespace birkhoff::apps {

class GenerationPrinter {
 public:
  // held: text is written at its end alone, since others are written meanwhile.
  GenerationPrinter(bool as_json, bool ids, bool top, bool held = false)
      : json_(as_json), ids_(ids), top_(top), held_(held) {}

  void token(const infer::GeneratedToken& t);
  // place: which prompt and sample it was, and what else is known of it.
  void end(const infer::Generated& g, nlohmann::json place);

 private:
  bool json_, ids_, top_, held_;
  std::string text_;
  std::vector<int32_t> tokens_;
  std::vector<double> logprobs_;
  std::vector<std::vector<std::pair<int32_t, double>>> top_ids_;
};

}  // namespace birkhoff::apps
