// A text cut into pieces: what the stages of a pre-tokenizer hand on.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "text/unicode/matcher.h"

namespace birkhoff::text {

struct Pieces {
  std::string_view text;               // valid UTF-8; the caller's, or storage
  std::string storage;                 // the text after a stage that changed it
  std::vector<Span> spans;             // in order, not empty, not overlapping
  bool at_start = false;               // the first span begins where the whole input begins
  std::vector<Span> scratch, matches;  // reused by the stages

  std::string_view view(Span s) const { return text.substr(s.begin, s.end - s.begin); }
  void reset(std::string_view t, bool start) {
    text = t;
    at_start = start;
    spans.clear();
    if (!t.empty()) spans.push_back({0, static_cast<uint32_t>(t.size())});
  }
};

}  // namespace birkhoff::text
