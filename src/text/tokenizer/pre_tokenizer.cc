#include "text/tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <functional>

#include "core/error.h"
#include "text/tokenizer/byte_symbols.h"
#include "text/tokenizer/component.h"
#include "text/unicode/unicode.h"
#include "text/unicode/utf8.h"

namespace birkhoff::text {
namespace {

enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

Behavior read_behavior(const Component& c, const char* fallback) {
  const std::string s = c.text("behavior", fallback);
  if (s == "Removed") return Behavior::removed;
  if (s == "Isolated") return Behavior::isolated;
  if (s == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (s == "MergedWithNext") return Behavior::merged_with_next;
  if (s == "Contiguous") return Behavior::contiguous;
  c.bad("behavior", "Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
}

struct Part {
  Span span;
  bool matched;
};

// Joins and drops the parts of one piece as the behavior says; empty parts are dropped, as the reference library does
// at the end.
void append_parts(std::vector<Part>& parts, Behavior behavior, std::vector<Span>& out) {
  std::vector<Span> joined;
  bool previous = false;
  const auto join = [&](auto begin, auto end, auto extend) {
    for (auto p = begin; p != end; ++p) {
      if (p->matched && !previous && !joined.empty()) {
        extend(joined.back(), p->span);
      } else {
        joined.push_back(p->span);
      }
      previous = p->matched;
    }
  };
  switch (behavior) {
    case Behavior::isolated:
    case Behavior::removed:
      for (const Part& p : parts)
        if (!p.matched || behavior == Behavior::isolated) joined.push_back(p.span);
      break;
    case Behavior::contiguous:
      for (size_t i = 0; i < parts.size(); ++i) {
        if (i > 0 && parts[i].matched == parts[i - 1].matched) {
          joined.back().end = parts[i].span.end;
        } else {
          joined.push_back(parts[i].span);
        }
      }
      break;
    case Behavior::merged_with_previous:
      join(parts.begin(), parts.end(), [](Span& last, Span s) { last.end = s.end; });
      break;
    case Behavior::merged_with_next:
      join(parts.rbegin(), parts.rend(), [](Span& last, Span s) { last.begin = s.begin; });
      std::reverse(joined.begin(), joined.end());
      break;
  }
  for (const Span s : joined)
    if (s.end > s.begin) out.push_back(s);
}

// Matches of one span (relative offsets) and the gaps between them.
void append_split(Span span, const std::vector<Span>& matches, Behavior behavior, bool invert, std::vector<Span>& out) {
  if (behavior == Behavior::isolated) {  // the common case; what counts as a match makes no difference
    uint32_t at = span.begin;
    for (const Span m : matches) {
      if (span.begin + m.begin > at) out.push_back({at, span.begin + m.begin});
      if (m.end > m.begin) out.push_back({span.begin + m.begin, span.begin + m.end});
      at = span.begin + m.end;
    }
    if (at < span.end) out.push_back({at, span.end});
    return;
  }
  std::vector<Part> parts;
  uint32_t at = 0;
  const uint32_t size = span.end - span.begin;
  const auto add = [&](uint32_t b, uint32_t e, bool matched) {
    parts.push_back({{span.begin + b, span.begin + e}, matched != invert});
  };
  for (const Span m : matches) {
    if (m.begin != at) add(at, m.begin, false);
    add(m.begin, m.end, true);
    at = m.end;
  }
  if (at != size) add(at, size, false);
  append_parts(parts, behavior, out);
}

class Split final : public PreTokenizer {
 public:
  Split(std::unique_ptr<Matcher> matcher, Behavior behavior, bool invert)
      : matcher_(std::move(matcher)), behavior_(behavior), invert_(invert) {}
  void apply(Pieces& p) const override {
    p.scratch.clear();
    for (const Span s : p.spans) {
      p.matches.clear();
      matcher_->find(p.view(s), p.matches);
      append_split(s, p.matches, behavior_, invert_, p.scratch);
    }
    std::swap(p.spans, p.scratch);
  }

 private:
  std::unique_ptr<Matcher> matcher_;
  Behavior behavior_;
  bool invert_;
};

// Every character for which the test is true is a match of its own.
class CharMatcher final : public Matcher {
 public:
  explicit CharMatcher(std::function<bool(char32_t)> test) : test_(std::move(test)) {
    for (char32_t c = 0; c < 128; ++c) ascii_[c] = test_(c);
  }
  void find(std::string_view piece, std::vector<Span>& matches) const override {
    const char *start = piece.data(), *end = start + piece.size(), *p = start;
    while (p < end) {
      const char* begin = p;
      const char32_t c = next_char(p);
      if (c < 128 ? ascii_[c] : test_(c))
        matches.push_back({static_cast<uint32_t>(begin - start), static_cast<uint32_t>(p - start)});
    }
  }

 private:
  std::function<bool(char32_t)> test_;
  bool ascii_[128];
};

// \w+ | [^\w\s]+ : runs of word characters and runs of the rest; white space is no match.
class WordMatcher final : public Matcher {
 public:
  void find(std::string_view piece, std::vector<Span>& matches) const override {
    const char *start = piece.data(), *end = start + piece.size(), *p = start;
    const auto kind = [](char32_t c) { return is_word(c) ? 1 : is_space(c) ? 0 : 2; };
    while (p < end) {
      const char* begin = p;
      const int k = kind(next_char(p));
      if (k == 0) continue;
      for (const char* after = p; p < end && kind(next_char(after)) == k; p = after) {
      }
      matches.push_back({static_cast<uint32_t>(begin - start), static_cast<uint32_t>(p - start)});
    }
  }
};

// Rebuilds the text piece by piece; edit(piece, is the start of the input) appends its new form.
template <class Edit>
void rewrite(Pieces& p, Edit edit) {
  std::string out;
  out.reserve(p.text.size() + p.spans.size());
  p.at_start = p.at_start && !p.spans.empty() && p.spans[0].begin == 0;
  for (size_t i = 0; i < p.spans.size(); ++i) {
    const size_t begin = out.size();
    edit(p.view(p.spans[i]), i == 0 && p.at_start, out);
    if (out.size() > UINT32_MAX) throw Error("tokenizer", "the text grows over 4 GiB", "split it");
    p.spans[i] = {static_cast<uint32_t>(begin), static_cast<uint32_t>(out.size())};
  }
  p.storage = std::move(out);
  p.text = p.storage;
}

class PrefixSpace final : public PreTokenizer {
 public:
  void apply(Pieces& p) const override {
    rewrite(p, [](std::string_view s, bool, std::string& out) {
      if (s[0] != ' ') out.push_back(' ');
      out.append(s);
    });
  }
};

class ByteSymbols final : public PreTokenizer {
 public:
  void apply(Pieces& p) const override {
    rewrite(p, [](std::string_view s, bool, std::string& out) { out += to_symbols(s); });
  }
};

class Metaspace final : public PreTokenizer {
 public:
  enum class Scheme { never, first, always };
  Metaspace(std::string replacement, Scheme scheme) : replacement_(std::move(replacement)), scheme_(scheme) {}
  void apply(Pieces& p) const override {
    rewrite(p, [&](std::string_view s, bool start, std::string& out) {
      const bool has = s[0] == ' ' || s.substr(0, replacement_.size()) == replacement_;
      if (!has && (scheme_ == Scheme::always || (scheme_ == Scheme::first && start))) out += replacement_;
      for (const char c : s) {
        if (c == ' ') {
          out += replacement_;
        } else {
          out.push_back(c);
        }
      }
    });
  }

 private:
  std::string replacement_;
  Scheme scheme_;
};

Metaspace::Scheme read_scheme(const Component& c) {
  const std::string s = c.text("prepend_scheme", "always");
  const Metaspace::Scheme scheme = s == "never"   ? Metaspace::Scheme::never
                                   : s == "first" ? Metaspace::Scheme::first
                                                  : Metaspace::Scheme::always;
  if (scheme == Metaspace::Scheme::always && s != "always") c.bad("prepend_scheme", "never, first or always");
  if (!c.flag("add_prefix_space", true) && scheme != Metaspace::Scheme::never)
    c.bad("add_prefix_space", "true unless \"prepend_scheme\" is never");
  return scheme;
}

using Stages = std::vector<std::unique_ptr<PreTokenizer>>;

void add_split(std::unique_ptr<Matcher> m, Behavior b, bool invert, Stages& out) {
  out.push_back(std::make_unique<Split>(std::move(m), b, invert));
}

void read_stages(const nlohmann::json& entry, Stages& out) {
  const Component c("pre_tokenizer", entry);
  const std::string& t = c.type();
  const auto by_char = [&](std::function<bool(char32_t)> test, Behavior b) {
    add_split(std::make_unique<CharMatcher>(std::move(test)), b, false, out);
  };
  if (t == "Sequence") {
    for (const auto& e : c.list("pretokenizers")) read_stages(e, out);
  } else if (t == "Split") {
    add_split(c.pattern("pattern"), read_behavior(c, "Isolated"), c.flag("invert", false), out);
  } else if (t == "Digits") {
    by_char([](char32_t ch) { return is_number(char_classes()(ch)); },
            c.flag("individual_digits", false) ? Behavior::isolated : Behavior::contiguous);
  } else if (t == "ByteLevel") {
    if (c.flag("add_prefix_space")) out.push_back(std::make_unique<PrefixSpace>());
    if (c.flag("use_regex", true)) add_split(make_regex_matcher(kGpt2Pattern), Behavior::isolated, false, out);
    out.push_back(std::make_unique<ByteSymbols>());
  } else if (t == "Whitespace") {
    add_split(std::make_unique<WordMatcher>(), Behavior::removed, true, out);
  } else if (t == "WhitespaceSplit") {
    by_char(is_space, Behavior::removed);
  } else if (t == "Punctuation") {
    by_char(
        [](char32_t ch) {
          return is_punctuation(char_classes()(ch)) || (ch < 128 && char_classes()(ch) == CharClass::symbol);
        },
        read_behavior(c, "Isolated"));
  } else if (t == "CharDelimiterSplit") {
    add_split(make_literal_matcher(c.character("delimiter")), Behavior::removed, false, out);
  } else if (t == "Metaspace") {
    out.push_back(std::make_unique<Metaspace>(c.character("replacement"), read_scheme(c)));
    if (c.flag("split", true))
      add_split(make_literal_matcher(c.character("replacement")), Behavior::merged_with_next, false, out);
  } else {
    c.unknown({"Sequence", "Split", "Digits", "ByteLevel", "Whitespace", "WhitespaceSplit", "Punctuation",
               "CharDelimiterSplit", "Metaspace"});
  }
}

}  // namespace

PreTokenizerStages read_pre_tokenizer(const nlohmann::json& entry) {
  PreTokenizerStages r;
  if (entry.is_null()) return r;
  read_stages(entry, r.stages);
  if (!r.stages.empty() && dynamic_cast<ByteSymbols*>(r.stages.back().get())) {
    r.stages.pop_back();
    r.byte_level = true;
  }
  return r;
}

}  // namespace birkhoff::text
