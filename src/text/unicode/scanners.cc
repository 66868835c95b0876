// Scanners for the alternations of the DeepSeek-V3, GPT-2, Qwen and Llama 3 families, chosen by the exact pattern. Each
// reads a run of white space at most three times, so the time is linear where a backtracking engine's is not.
#include "text/unicode/matcher.h"
#include "text/unicode/unicode.h"
#include "text/unicode/utf8.h"

namespace birkhoff::text {
namespace {

constexpr char kV3Pattern[] =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "
    "?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";
constexpr char kTrailingSpacePattern[] = "\\s+$";

bool ascii_letter(char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }
bool line_break(char32_t c) { return c == '\r' || c == '\n'; }

// What the scanners ask of a character.
struct Kinds {
  enum : uint8_t { letter = 1, mark = 2, number = 4, sign = 8 /* punctuation or symbol */, space = 16, breaks = 32 };
  uint8_t ascii[128];
  const ClassTable& classes = char_classes();
  Kinds() {
    for (char32_t c = 0; c < 128; ++c) ascii[c] = slow(c);
  }
  uint8_t slow(char32_t c) const {
    const CharClass k = classes(c);
    uint8_t r = is_space(c) ? space : 0;
    if (line_break(c)) r |= breaks;
    if (k == CharClass::letter) r |= letter;
    if (k == CharClass::mark) r |= mark;
    if (is_number(k)) r |= number;
    if (is_punctuation(k) || k == CharClass::symbol) r |= sign;
    return r;
  }
  uint8_t operator()(char32_t c) const { return c < 128 ? ascii[c] : slow(c); }
};
const Kinds& kinds() {
  static const Kinds k;
  return k;
}

// Moves p over characters of which `wanted` has a kind.
void skip_run(const char*& p, const char* end, uint8_t wanted, const Kinds& k) {
  while (p < end) {
    const char* after = p;
    if (!(k(next_char(after)) & wanted)) return;
    p = after;
  }
}

// The same over what is no letter, number or white space.
void skip_others(const char*& p, const char* end, const Kinds& k) {
  while (p < end) {
    const char* after = p;
    if (k(next_char(after)) & (Kinds::letter | Kinds::number | Kinds::space)) return;
    p = after;
  }
}

// The three alternatives `\s*[\r\n]+`, `\s+(?!\S)`, `\s+` at a white-space character; with_breaks: the first of them
// exists.
const char* space_match(const char* begin, const char* end, bool with_breaks, const Kinds& k) {
  const char *p = begin, *last = begin, *after_break = nullptr;
  while (p < end) {
    const char* after = p;
    const uint8_t kind = k(next_char(after));
    if (!(kind & Kinds::space)) break;
    last = p;
    p = after;
    if (kind & Kinds::breaks) after_break = after;
  }
  if (with_breaks && after_break) return after_break;
  if (p == end || last == begin) return p;  // at the end of the text, or one character alone
  return last;                              // the last one belongs to what follows
}

// The end of the match that begins at p, nullptr when none does.
const char* v3_match(const char* p, const char* end, const Kinds& k) {
  const char* after = p;
  const char32_t c = next_char(after);
  const uint8_t kind = k(c);
  if (c < 128 && (kind & Kinds::sign) && after < end && ascii_letter(*after)) {
    while (after < end && ascii_letter(*after)) ++after;
    return after;
  }
  if (!(kind & (Kinds::letter | Kinds::sign | Kinds::breaks)) && after < end) {  // one character before a word
    const char* word = after;
    if (k(next_char(word)) & (Kinds::letter | Kinds::mark)) {
      skip_run(word, end, Kinds::letter | Kinds::mark, k);
      return word;
    }
  }
  if (kind & (Kinds::letter | Kinds::mark)) {
    skip_run(after, end, Kinds::letter | Kinds::mark, k);
    return after;
  }
  const char* signs = p;
  if (c == ' ') signs = after;
  const char* behind = signs;
  skip_run(behind, end, Kinds::sign, k);
  if (behind > signs) {
    skip_run(behind, end, Kinds::breaks, k);
    return behind;
  }
  return kind & Kinds::space ? space_match(p, end, true, k) : nullptr;
}

// Bytes of `'s`, `'re` and the like at p, 0 when there is none; any_case: in capitals too, and U+017F is an s.
int64_t contraction(const char* p, const char* end, bool any_case) {
  if (*p != '\'' || end - p < 2) return 0;
  const auto small = [&](char c) { return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  const char a = small(p[1]), b = end - p > 2 ? small(p[2]) : '\0';
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
  return any_case && a == '\xC5' && b == '\xBF' ? 3 : 0;
}

const char* gpt2_match(const char* p, const char* end, const Kinds& k) {
  if (const int64_t n = contraction(p, end, false)) return p + n;
  const char* word = p;
  const uint8_t first = k(next_char(word));
  if (*p == ' ' && word < end) {  // the optional space belongs to the word behind it
    const char* after = word;
    const uint8_t kind = k(next_char(after));
    if (!(kind & Kinds::space)) {
      const uint8_t wanted = kind & (Kinds::letter | Kinds::number);
      word = after;
      if (wanted) {
        skip_run(word, end, wanted, k);
        return word;
      }
      skip_others(word, end, k);
      return word;
    }
  }
  if (first & Kinds::space) return space_match(p, end, false, k);
  if (const uint8_t wanted = first & (Kinds::letter | Kinds::number)) {
    skip_run(word, end, wanted, k);
    return word;
  }
  skip_others(word, end, k);
  return word;
}

// Qwen and Llama 3, whose numbers end after kDigits characters.
template <int kDigits>
const char* word_match(const char* p, const char* end, const Kinds& k) {
  if (const int64_t n = contraction(p, end, true)) return p + n;
  const char* after = p;
  const uint8_t kind = k(next_char(after));
  if (!(kind & (Kinds::letter | Kinds::number | Kinds::breaks)) && after < end) {  // one character before a word
    const char* word = after;
    if (k(next_char(word)) & Kinds::letter) {
      skip_run(word, end, Kinds::letter, k);
      return word;
    }
  }
  if (kind & Kinds::letter) {
    skip_run(after, end, Kinds::letter, k);
    return after;
  }
  if (kind & Kinds::number) {
    for (int n = 1; n < kDigits && after < end; ++n) {
      const char* next = after;
      if (!(k(next_char(next)) & Kinds::number)) break;
      after = next;
    }
    return after;
  }
  const char* signs = *p == ' ' ? after : p;
  const char* behind = signs;
  skip_others(behind, end, k);
  if (behind == signs) return space_match(p, end, true, k);
  skip_run(behind, end, Kinds::breaks, k);
  return behind;
}

template <const char* (*Match)(const char*, const char*, const Kinds&)>
class Scanner final : public Matcher {
 public:
  void find(std::string_view piece, std::vector<Span>& matches) const override {
    const Kinds& k = kinds();
    const char *start = piece.data(), *end = start + piece.size(), *p = start;
    while (p < end) {
      const char* behind = Match(p, end, k);
      if (behind) {
        matches.push_back({static_cast<uint32_t>(p - start), static_cast<uint32_t>(behind - start)});
        p = behind;
      } else {
        next_char(p);
      }
    }
  }
};

// White space before the end of the text or, as $ means it there, before a line feed.
class TrailingSpace final : public Matcher {
 public:
  void find(std::string_view piece, std::vector<Span>& matches) const override {
    const char *start = piece.data(), *end = start + piece.size(), *p = start;
    while (p < end) {
      const char* begin = p;
      if (!is_space(next_char(p))) continue;
      const char* feed = nullptr;  // the last line feed behind the run's first character
      while (p < end) {
        const char* after = p;
        if (!is_space(next_char(after))) break;
        if (*p == '\n') feed = p;
        p = after;
      }
      const char* stop = p == end ? end : feed;
      if (stop) matches.push_back({static_cast<uint32_t>(begin - start), static_cast<uint32_t>(stop - start)});
    }
  }
};

}  // namespace

std::unique_ptr<Matcher> make_scanner(const std::string& pattern) {
  if (pattern == kV3Pattern) return std::make_unique<Scanner<v3_match>>();
  if (pattern == kGpt2Pattern) return std::make_unique<Scanner<gpt2_match>>();
  if (pattern == kQwenPattern) return std::make_unique<Scanner<word_match<1>>>();
  if (pattern == kLlama3Pattern) return std::make_unique<Scanner<word_match<3>>>();
  if (pattern == kTrailingSpacePattern) return std::make_unique<TrailingSpace>();
  return make_class_run(pattern);
}

std::unique_ptr<Matcher> make_regex_matcher(const std::string& pattern) {
  if (std::unique_ptr<Matcher> m = make_scanner(pattern)) return m;
  return make_oniguruma_matcher(pattern);
}

}  // namespace birkhoff::text
