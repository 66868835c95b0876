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
  std::string shown(t.text);
  if (ids_) shown = (t.index ? " " : "") + std::to_string(t.id);
  if (held_) {
    text_ += shown;
    return;
  }
  std::fwrite(shown.data(), 1, shown.size(), stdout);
  if (!shown.empty()) flush_output();
}

void GenerationPrinter::end(const infer::Generated& g, nlohmann::json place) {
  if (!json_) {
    write_line(text_ + g.rest);
    flush_output();
    text_.clear();
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
