#include "text/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <functional>

#include "core/error.h"
#include "text/tokenizer/byte_symbols.h"
#include "text/tokenizer/component.h"
#include "text/tokenizer/growth.h"
#include "text/unicode/unicode.h"
#include "text/unicode/utf8.h"

namespace birkhoff::text {
namespace {

constexpr char32_t kCapitalIWithDot = 0x130;

class TextEdit final : public Normalizer {
 public:
  using Edit = std::function<void(std::string&, size_t limit)>;
  explicit TextEdit(Edit edit) : edit_(std::move(edit)) {}
  void apply(std::string& text, size_t limit) const override { edit_(text, limit); }

 private:
  Edit edit_;
};

template <class PerChar>
void rewrite_chars(std::string& text, PerChar per_char) {
  std::string out;
  out.reserve(text.size());
  for (const char *p = text.data(), *end = p + text.size(); p < end;) per_char(next_char(p), out);
  text = std::move(out);
}

// Normalization form: decompose every character, order the marks, compose. The library's own ordering takes quadratic
// time on long runs of marks, so the runs are sorted here.
void normalize(std::string& text, bool compatible, bool compose) {
  std::vector<utf8proc_int32_t> chars;
  chars.reserve(text.size() + 4);
  const auto options =
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0));
  for (const char *p = text.data(), *end = p + text.size(); p < end;) {
    const auto c = static_cast<utf8proc_int32_t>(next_char(p));
    utf8proc_int32_t parts[32];
    int boundary = 0;
    const utf8proc_ssize_t n = utf8proc_decompose_char(c, parts, 32, options, &boundary);
    BK_CHECK(n >= 0 && n <= 32);
    chars.insert(chars.end(), parts, parts + n);
  }
  const auto order = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  for (size_t i = 0; i < chars.size(); ++i) {
    if (order(chars[i]) == 0) continue;
    size_t end = i;
    while (end < chars.size() && order(chars[end]) != 0) ++end;
    std::stable_sort(chars.begin() + static_cast<std::ptrdiff_t>(i), chars.begin() + static_cast<std::ptrdiff_t>(end),
                     [&](auto a, auto b) { return order(a) < order(b); });
    i = end - 1;
  }
  auto count = static_cast<utf8proc_ssize_t>(chars.size());
  if (compose)
    count = utf8proc_normalize_utf32(chars.data(), count,
                                     static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  BK_CHECK(count >= 0);
  text.clear();
  for (utf8proc_ssize_t i = 0; i < count; ++i) append_char(static_cast<char32_t>(chars[static_cast<size_t>(i)]), text);
}

void lowercase(std::string& text) {
  rewrite_chars(text, [](char32_t c, std::string& out) {
    if (c == kCapitalIWithDot) {  // the one character whose small form is two
      out += "i\xCC\x87";
    } else {
      append_char(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), out);
    }
  });
}

void strip(std::string& text, bool left, bool right) {
  size_t begin = 0, end = text.size();
  for (const char *p = text.data(), *stop = p + text.size(); left && p < stop && is_space(next_char(p));)
    begin = static_cast<size_t>(p - text.data());
  while (right && end > begin) {
    const std::string_view rest(text.data() + begin, end - begin);
    const char32_t c = last_char(rest);
    if (!is_space(c)) break;
    end -= c < 0x80 ? 1 : c < 0x800 ? 2 : 3;
  }
  text = text.substr(begin, end - begin);
}

void replace(const Matcher& matcher, const std::string& content, std::string& text, size_t limit) {
  std::vector<Span> matches;
  if (text.size() > UINT32_MAX) throw Error("tokenizer", "the text is over 4 GiB", "split it");
  matcher.find(text, matches);
  if (matches.empty()) return;
  require_output("normalizer", replaced_bytes(0, matches.size(), content.size()), limit);
  std::string out;
  size_t at = 0;
  for (const Span m : matches) {
    out.append(text, at, m.begin - at).append(content);
    at = m.end;
  }
  text = out.append(text, at);
}

using Steps = std::vector<std::unique_ptr<Normalizer>>;

void read_steps(const nlohmann::json& entry, Steps& out) {
  const Component c("normalizer", entry);
  const std::string& t = c.type();
  const auto step = [&](TextEdit::Edit f) { out.push_back(std::make_unique<TextEdit>(std::move(f))); };
  if (t == "Sequence") {
    for (const auto& e : c.list("normalizers")) read_steps(e, out);
  } else if (t == "NFC" || t == "NFD" || t == "NFKC" || t == "NFKD") {
    step([compatible = t[2] == 'K', compose = t.back() == 'C'](std::string& s, size_t) {
      normalize(s, compatible, compose);
    });
  } else if (t == "Lowercase") {
    step([](std::string& s, size_t) { lowercase(s); });
  } else if (t == "StripAccents") {
    step([](std::string& s, size_t) {
      rewrite_chars(s, [](char32_t ch, std::string& o) {
        if (char_classes()(ch) != CharClass::mark) append_char(ch, o);
      });
    });
  } else if (t == "Strip") {
    step([l = c.flag("strip_left"), r = c.flag("strip_right")](std::string& s, size_t) { strip(s, l, r); });
  } else if (t == "Replace") {
    step([m = std::shared_ptr<Matcher>(c.pattern("pattern")), with = c.text("content")](std::string& s, size_t limit) {
      replace(*m, with, s, limit);
    });
  } else if (t == "Prepend") {
    step([what = c.text("prepend")](std::string& s, size_t limit) {
      if (s.empty()) return;
      require_output("normalizer", s.size() + what.size(), limit);
      s.insert(0, what);
    });
  } else if (t == "ByteLevel") {
    step([](std::string& s, size_t) { s = to_symbols(s); });
  } else {
    c.unknown({"Sequence", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Strip", "Replace", "Prepend",
               "ByteLevel"});
  }
}

}  // namespace

Steps read_normalizer(const nlohmann::json& entry) {
  Steps steps;
  if (!entry.is_null()) read_steps(entry, steps);
  require_steps("normalizer", steps.size());
  return steps;
}

void apply_all(const Steps& steps, std::string& text, size_t limit) {
  for (const auto& step : steps) {
    step->apply(text, limit);
    require_output("normalizer", text.size(), limit);
  }
}

}  // namespace birkhoff::text
