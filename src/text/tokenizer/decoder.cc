#include "text/tokenizer/decoder.h"

#include <algorithm>
#include <functional>

#include "text/tokenizer/byte_symbols.h"
#include "text/tokenizer/component.h"
#include "text/tokenizer/growth.h"
#include "text/unicode/utf8.h"

namespace birkhoff::text {

void append_symbol_bytes(std::string_view token, std::string& out) {
  const size_t before = out.size();
  for (const char *p = token.data(), *end = p + token.size(); p < end;) {
    const int b = symbol_byte(next_char(p));
    if (b < 0) {
      out.resize(before);
      out.append(token);
      return;
    }
    out.push_back(static_cast<char>(b));
  }
}

namespace {

using Tokens = std::vector<std::string>;

class TokenEdit final : public Decoder {
 public:
  using Edit = std::function<void(Tokens&, size_t limit)>;
  explicit TokenEdit(Edit edit) : edit_(std::move(edit)) {}
  void apply(Tokens& tokens, size_t limit) const override { edit_(tokens, limit); }

 private:
  Edit edit_;
};

void fuse(Tokens& tokens) {
  std::string all;
  for (const auto& t : tokens) all += t;
  tokens = {std::move(all)};
}

void byte_level(Tokens& tokens) {
  std::string bytes;
  for (const auto& t : tokens) append_symbol_bytes(t, bytes);
  tokens = {replace_invalid(bytes)};
}

// The byte that <0xNN> stands for, -1 for any other token.
int fallback_byte(const std::string& t) {
  if (t.size() != 6 || t.compare(0, 3, "<0x") != 0 || t[5] != '>') return -1;
  int value = 0;
  for (const char c : {t[3], t[4]}) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

// A run of byte tokens is text when all of it is UTF-8, else one U+FFFD a byte.
void byte_fallback(Tokens& tokens) {
  Tokens out;
  std::string run;
  const auto close = [&] {
    if (run.empty()) return;
    if (first_invalid(run) == run.size()) {
      out.push_back(run);
    } else {
      for (size_t i = 0; i < run.size(); ++i) out.push_back("\xEF\xBF\xBD");
    }
    run.clear();
  };
  for (auto& t : tokens) {
    const int b = fallback_byte(t);
    if (b >= 0) {
      run.push_back(static_cast<char>(b));
    } else {
      close();
      out.push_back(std::move(t));
    }
  }
  close();
  tokens = std::move(out);
}

// Removes up to `start` and `stop` times `content` (one character) from both ends of every token.
void strip(Tokens& tokens, const std::string& content, uint32_t start, uint32_t stop) {
  const size_t n = content.size();
  for (auto& t : tokens) {
    size_t begin = 0, end = t.size();
    for (uint32_t i = 0; i < start && end - begin >= n && t.compare(begin, n, content) == 0; ++i) begin += n;
    for (uint32_t i = 0; i < stop && end - begin >= n && t.compare(end - n, n, content) == 0; ++i) end -= n;
    t = t.substr(begin, end - begin);
  }
}

// `left` of the limit is used up by what is written.
std::string replaced(const std::string& t, const Matcher& matcher, const std::string& content, size_t& left) {
  std::vector<Span> matches;
  matcher.find(t, matches);
  const size_t bytes = replaced_bytes(t.size(), matches.size(), content.size());
  require_output("decoder", bytes, left);
  left -= bytes;
  std::string out;
  size_t at = 0;
  for (const Span m : matches) {
    out.append(t, at, m.begin - at).append(content);
    at = m.end;
  }
  return out.append(t, at);
}

void read_steps(const nlohmann::json& entry, std::vector<std::unique_ptr<Decoder>>& out) {
  const Component c("decoder", entry);
  const std::string& t = c.type();
  const auto step = [&](TokenEdit::Edit f) { out.push_back(std::make_unique<TokenEdit>(std::move(f))); };
  const auto replace_step = [&](std::shared_ptr<Matcher> m, const std::string& with) {
    step([m, with](Tokens& tokens, size_t limit) {
      for (auto& s : tokens) s = replaced(s, *m, with, limit);
    });
  };
  if (t == "Sequence") {
    for (const auto& e : c.list("decoders")) read_steps(e, out);
  } else if (t == "ByteLevel") {
    step([](Tokens& tokens, size_t) { byte_level(tokens); });
  } else if (t == "ByteFallback") {
    step([](Tokens& tokens, size_t) { byte_fallback(tokens); });
  } else if (t == "Fuse") {
    step([](Tokens& tokens, size_t) { fuse(tokens); });
  } else if (t == "Replace") {
    replace_step(c.pattern("pattern"), c.text("content"));
  } else if (t == "Strip") {
    step([content = c.character("content"), a = c.count("start"), b = c.count("stop")](Tokens& tokens, size_t) {
      strip(tokens, content, a, b);
    });
  } else if (t == "Metaspace") {
    const bool prefix = c.text("prepend_scheme", "always") != "never";
    step([m = std::shared_ptr<Matcher>(make_literal_matcher(c.character("replacement"))), prefix](Tokens& tokens,
                                                                                                  size_t limit) {
      for (size_t i = 0; i < tokens.size(); ++i)
        tokens[i] = replaced(tokens[i], *m, i == 0 && prefix ? "" : " ", limit);
    });
  } else if (t == "BPEDecoder") {
    step([m = std::shared_ptr<Matcher>(make_literal_matcher(c.text("suffix")))](Tokens& tokens, size_t limit) {
      for (size_t i = 0; i < tokens.size(); ++i)
        tokens[i] = replaced(tokens[i], *m, i + 1 == tokens.size() ? "" : " ", limit);
    });
  } else {
    c.unknown({"Sequence", "ByteLevel", "ByteFallback", "Fuse", "Replace", "Strip", "Metaspace", "BPEDecoder"});
  }
}

}  // namespace

DecoderSteps read_decoder(const nlohmann::json& entry) {
  DecoderSteps r;
  if (entry.is_null()) return r;
  r.none = false;
  read_steps(entry, r.steps);
  require_steps("decoder", r.steps.size());
  r.byte_level = entry.at("type") == "ByteLevel";
  return r;
}

}  // namespace birkhoff::text
