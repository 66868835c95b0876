// Oniguruma behind Matcher, and literals.
#include <mutex>

#include "core/error.h"
#include "text/unicode/matcher.h"
#include "text/unicode/onig_regex.h"
#include "text/unicode/utf8.h"

namespace birkhoff::text {
namespace {

constexpr size_t kMaxPatternBytes = 64 << 10;
constexpr uint64_t kMaxRepetitions = 100000;  // product of all {m,n}: the engine writes repetitions out
constexpr unsigned kParseDepth = 250;
constexpr unsigned long kRetryLimit = 10'000'000;  // the engine's own default, as in the reference library

const OnigUChar* bytes(const char* p) { return reinterpret_cast<const OnigUChar*>(p); }

std::string onig_message(int code, const OnigErrorInfo* info = nullptr) {
  OnigUChar buffer[ONIG_MAX_ERROR_MESSAGE_LEN];
  const int n = info ? onig_error_code_to_str(buffer, code, info) : onig_error_code_to_str(buffer, code);
  return std::string(reinterpret_cast<const char*>(buffer), static_cast<size_t>(n));
}

// Python's with set operations, into which classes of classes are translated.
OnigSyntaxType* python_syntax() {
  static OnigSyntaxType syntax = [] {
    OnigSyntaxType s;
    onig_copy_syntax(&s, ONIG_SYNTAX_PYTHON);
    onig_set_syntax_op2(&s, onig_get_syntax_op2(&s) | ONIG_SYN_OP2_CCLASS_SET_OP);
    return s;
  }();
  return &syntax;
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

class OnigurumaMatcher final : public Matcher {
 public:
  explicit OnigurumaMatcher(const std::string& pattern)
      : regex_(pattern, OnigRegex::Syntax::oniguruma, pattern, "tokenizer") {}

  void find(std::string_view piece, std::vector<Span>& matches) const override {
    const Region region = make_region();
    size_t from = 0, last_end = std::string::npos;
    while (from <= piece.size()) {
      if (!regex_.search(piece, from, region.get())) return;
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
  OnigRegex regex_;
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

OnigRegex::OnigRegex(const std::string& source, Syntax syntax, std::string pattern, std::string where)
    : pattern_(std::move(pattern)), where_(std::move(where)) {
  start_engine();
  check_size(source);
  OnigErrorInfo info;
  regex_t* regex = nullptr;
  const int code =
      onig_new(&regex, bytes(source.data()), bytes(source.data() + source.size()), ONIG_OPTION_NONE, ONIG_ENCODING_UTF8,
               syntax == Syntax::python ? python_syntax() : ONIG_SYNTAX_ONIGURUMA, &info);
  if (code != ONIG_NORMAL) fail(onig_message(code, &info));
  regex_.reset(regex);
}

bool OnigRegex::search(std::string_view text, size_t from, OnigRegion* region, bool not_empty) const {
  const OnigUChar *start = bytes(text.data()), *end = start + text.size();
  const OnigOptionType option = not_empty ? ONIG_OPTION_FIND_NOT_EMPTY : ONIG_OPTION_NONE;
  const int at = onig_search(regex_.get(), start, end, start + from, end, region, option);
  if (at < 0 && at != ONIG_MISMATCH)
    fail("on " + std::to_string(text.size()) + " bytes: " + onig_message(at), "split the text");
  return at >= 0;
}

void OnigRegex::fail(const std::string& why, const std::string& hint) const {
  const std::string shown = pattern_.size() > 120 ? pattern_.substr(0, 120) + "..." : pattern_;
  throw Error(where_, "regular expression " + shown + (hint.empty() ? ": " : " ") + why, hint);
}

void OnigRegex::check_size(const std::string& source) const {
  if (source.size() > kMaxPatternBytes)
    fail(std::to_string(source.size()) + " bytes, at most " + std::to_string(kMaxPatternBytes));
  if (first_invalid(source) != source.size()) fail("is not UTF-8");
  uint64_t product = 1;
  for (size_t i = source.find('{'); i != std::string::npos; i = source.find('{', i + 1)) {
    uint64_t most = 1, n = 0;
    for (size_t j = i + 1; j < source.size() && source[j] != '}' && j < i + 20; ++j) {
      n = source[j] >= '0' && source[j] <= '9' ? n * 10 + static_cast<uint64_t>(source[j] - '0') : 0;
      most = std::max(most, std::min(n, kMaxRepetitions + 1));
    }
    product = std::min(product * most, kMaxRepetitions + 1);
  }
  if (product > kMaxRepetitions) fail("repetitions multiply to more than " + std::to_string(kMaxRepetitions));
}

std::unique_ptr<Matcher> make_oniguruma_matcher(const std::string& pattern) {
  return std::make_unique<OnigurumaMatcher>(pattern);
}

std::unique_ptr<Matcher> make_literal_matcher(std::string literal) {
  if (literal.empty()) throw Error("tokenizer", "a pattern is empty", "a Split or Replace needs something to look for");
  return std::make_unique<LiteralMatcher>(std::move(literal));
}

}  // namespace birkhoff::text
