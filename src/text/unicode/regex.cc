// Oniguruma behind Matcher, and literals.
#include <oniguruma.h>

#include <mutex>

#include "core/error.h"
#include "text/unicode/matcher.h"
#include "text/unicode/utf8.h"

namespace birkhoff::text {
namespace {

constexpr size_t kMaxPatternBytes = 64 << 10;
constexpr uint64_t kMaxRepetitions = 100000;  // product of all {m,n}: the engine writes repetitions out
constexpr unsigned kParseDepth = 250;
constexpr unsigned long kRetryLimit = 10'000'000;  // the engine's own default, as in the reference library

const OnigUChar* bytes(const char* p) { return reinterpret_cast<const OnigUChar*>(p); }

std::string shown(const std::string& pattern) {
  return pattern.size() > 120 ? pattern.substr(0, 120) + "..." : pattern;
}

[[noreturn]] void bad_pattern(const std::string& pattern, const std::string& why) {
  throw Error("tokenizer", "regular expression " + shown(pattern) + ": " + why);
}

std::string onig_message(int code, const OnigErrorInfo* info = nullptr) {
  OnigUChar buffer[ONIG_MAX_ERROR_MESSAGE_LEN];
  const int n = info ? onig_error_code_to_str(buffer, code, info) : onig_error_code_to_str(buffer, code);
  return std::string(reinterpret_cast<const char*>(buffer), static_cast<size_t>(n));
}

void start_engine() {
  static std::once_flag once;
  std::call_once(once, [] {
    OnigEncoding utf8 = ONIG_ENCODING_UTF8;
    onig_initialize(&utf8, 1);
    onig_set_parse_depth_limit(kParseDepth);
    onig_set_retry_limit_in_match(kRetryLimit);
    onig_set_retry_limit_in_search(kRetryLimit * 10);
  });
}

void check_size(const std::string& pattern) {
  if (pattern.size() > kMaxPatternBytes)
    bad_pattern(pattern, std::to_string(pattern.size()) + " bytes, at most " + std::to_string(kMaxPatternBytes));
  if (first_invalid(pattern) != pattern.size()) bad_pattern(pattern, "is not UTF-8");
  uint64_t product = 1;
  for (size_t i = pattern.find('{'); i != std::string::npos; i = pattern.find('{', i + 1)) {
    uint64_t most = 1, n = 0;
    for (size_t j = i + 1; j < pattern.size() && pattern[j] != '}' && j < i + 20; ++j) {
      n = pattern[j] >= '0' && pattern[j] <= '9' ? n * 10 + static_cast<uint64_t>(pattern[j] - '0') : 0;
      most = std::max(most, std::min(n, kMaxRepetitions + 1));
    }
    product = std::min(product * most, kMaxRepetitions + 1);
  }
  if (product > kMaxRepetitions)
    bad_pattern(pattern, "repetitions multiply to more than " + std::to_string(kMaxRepetitions));
}

class OnigurumaMatcher final : public Matcher {
 public:
  explicit OnigurumaMatcher(const std::string& pattern) : pattern_(pattern) {
    start_engine();
    check_size(pattern);
    OnigErrorInfo info;
    const int code = onig_new(&regex_, bytes(pattern.data()), bytes(pattern.data() + pattern.size()), ONIG_OPTION_NONE,
                              ONIG_ENCODING_UTF8, ONIG_SYNTAX_ONIGURUMA, &info);
    if (code != ONIG_NORMAL) bad_pattern(pattern, onig_message(code, &info));
  }
  ~OnigurumaMatcher() override { onig_free(regex_); }
  OnigurumaMatcher(const OnigurumaMatcher&) = delete;
  OnigurumaMatcher& operator=(const OnigurumaMatcher&) = delete;

  void find(std::string_view piece, std::vector<Span>& matches) const override {
    const OnigUChar *start = bytes(piece.data()), *end = start + piece.size();
    const std::unique_ptr<OnigRegion, void (*)(OnigRegion*)> region(onig_region_new(),
                                                                    [](OnigRegion* r) { onig_region_free(r, 1); });
    size_t from = 0, last_end = std::string::npos;
    while (from <= piece.size()) {
      const int at = onig_search(regex_, start, end, start + from, end, region.get(), ONIG_OPTION_NONE);
      if (at == ONIG_MISMATCH) return;
      if (at < 0)
        throw Error("tokenizer",
                    "regular expression " + shown(pattern_) + " on " + std::to_string(piece.size()) +
                        " bytes: " + onig_message(at),
                    "split the text");
      const auto b = static_cast<uint32_t>(region->beg[0]), e = static_cast<uint32_t>(region->end[0]);
      if (b == e && e == last_end) {  // an empty match right behind a match is none
        if (from == piece.size()) return;
        const char* p = piece.data() + from;
        next_char(p);
        from = static_cast<size_t>(p - piece.data());
        continue;
      }
      from = last_end = e;
      matches.push_back({b, e});
    }
  }

 private:
  std::string pattern_;
  regex_t* regex_ = nullptr;
};

class LiteralMatcher final : public Matcher {
 public:
  explicit LiteralMatcher(std::string literal) : literal_(std::move(literal)) {}
  void find(std::string_view piece, std::vector<Span>& matches) const override {
    for (size_t at = piece.find(literal_); at != std::string_view::npos;
         at = piece.find(literal_, at + literal_.size()))
      matches.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(at + literal_.size())});
  }

 private:
  std::string literal_;
};

}  // namespace

std::unique_ptr<Matcher> make_oniguruma_matcher(const std::string& pattern) {
  return std::make_unique<OnigurumaMatcher>(pattern);
}

std::unique_ptr<Matcher> make_literal_matcher(std::string literal) {
  if (literal.empty()) throw Error("tokenizer", "a pattern is empty", "a Split or Replace needs something to look for");
  return std::make_unique<LiteralMatcher>(std::move(literal));
}

}  // namespace birkhoff::text
