#include "apps/generation_printer.h"

#include <cstdio>

#include "apps/output.h"

namespace birkhoff::apps {

void GenerationPrinter::token(const infer::GeneratedToken& t) {
  if (json_) {
    text_ += t.text;
    tokens_.push_back(t.id);
    logprobs_.push_back(t.logprob);
    if (top_) top_ids_.push_back(t.top);
    return;
  }
  if (ids_)
    std::printf("%s%d", t.index ? " " : "", t.id);
  else
    std::fwrite(t.text.data(), 1, t.text.size(), stdout);
  if (ids_ || !t.text.empty()) flush_output();
}

void GenerationPrinter::end(const infer::Generated& g, nlohmann::json place) {
  if (!json_) {
    std::printf("%s\n", g.rest.c_str());
    flush_output();
    return;
  }
  if (!ids_) place["text"] = text_ + g.rest;
  place["tokens"] = tokens_;
  place["logprobs"] = logprobs_;
  if (top_) place["top"] = top_ids_;
  place["finish"] = infer::finish_name(g.finish);
  write_line(place.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  flush_output();
  text_.clear(), tokens_.clear(), logprobs_.clear(), top_ids_.clear();
}

}  // namespace birkhoff::apps
