// Patterns that are one class, repeated: [..]+, \s?\p{L}+, \p{N}{1,3}.
#include <optional>

#include "text/unicode/code_set.h"
#include "text/unicode/matcher.h"
#include "text/unicode/unicode.h"
#include "text/unicode/utf8.h"

namespace birkhoff::text {

void CodeSet::add(char32_t first, char32_t last) {
  for (char32_t c = first; c <= last; ++c) {
    uint16_t& page = index_[c >> 8];
    if (page == 0) {
      page = static_cast<uint16_t>(pages_.size());
      pages_.push_back({});
    }
    pages_[page][(c & 0xFF) >> 6] |= uint64_t{1} << (c & 63);
  }
}

namespace {

struct ClassRunPattern {
  bool leading_space = false;
  uint32_t least = 1, most = 1;  // most 0: no limit
  CodeSet set;
};

// Reads the few forms that this file knows; anything else makes it fail.
class Reader {
 public:
  explicit Reader(const std::string& s) : p_(s.data()), end_(s.data() + s.size()) {}
  std::optional<ClassRunPattern> read() {
    ClassRunPattern r;
    r.leading_space = take("\\s?");
    if (!read_class(r.set) || !read_count(r) || p_ != end_) return std::nullopt;
    return r;
  }

 private:
  bool take(std::string_view s) {
    if (static_cast<size_t>(end_ - p_) < s.size() || std::string_view(p_, s.size()) != s) return false;
    p_ += s.size();
    return true;
  }
  bool read_property(CodeSet& set) {
    const auto classes = [&](auto test) {
      set.add_if([&](char32_t c) { return test(char_classes()(c)); });
      return true;
    };
    if (take("\\p{L}")) return classes([](CharClass k) { return k == CharClass::letter; });
    if (take("\\p{N}")) return classes([](CharClass k) { return is_number(k); });
    if (take("\\p{P}")) return classes([](CharClass k) { return is_punctuation(k); });
    return false;
  }
  bool read_class(CodeSet& set) {
    if (!take("[")) return read_property(set);
    if (p_ == end_ || *p_ == ']' || *p_ == '^') return false;
    while (!take("]")) {
      if (p_ == end_) return false;
      // What is special in a class, or might be: left to the engine.
      if (*p_ == '[' || *p_ == '\\' || *p_ == '&' || *p_ == '-') return false;
      const char32_t first = next_char(p_);
      char32_t last = first;
      if (p_ + 1 < end_ && *p_ == '-' && p_[1] != ']') {
        ++p_;
        if (*p_ == '[' || *p_ == '\\' || *p_ == '&') return false;
        last = next_char(p_);
      }
      if (last < first || (work_ += last - first) > kMostWork) return false;
      set.add(first, last);
    }
    return true;
  }
  bool read_number(uint32_t& n) {
    const char* start = p_;
    for (n = 0; p_ < end_ && *p_ >= '0' && *p_ <= '9' && p_ - start < 6; ++p_)
      n = n * 10 + static_cast<uint32_t>(*p_ - '0');
    return p_ > start;
  }
  bool read_count(ClassRunPattern& r) {
    if (p_ == end_) return true;
    if (take("+")) {
      r.most = 0;
      return true;
    }
    return take("{") && read_number(r.least) && take(",") && read_number(r.most) && take("}") && r.least == 1 &&
           r.most >= 1;
  }
  static constexpr uint64_t kMostWork =
      4 << 20;  // code points put into sets; released patterns need a tenth of a million
  const char *p_, *end_;
  uint64_t work_ = 0;
};

class ClassRun final : public Matcher {
 public:
  explicit ClassRun(ClassRunPattern p) : p_(std::move(p)) {}
  void find(std::string_view piece, std::vector<Span>& matches) const override {
    const char *start = piece.data(), *end = start + piece.size(), *p = start;
    while (p < end) {
      const char* begin = p;
      const char32_t c = next_char(p);
      if (p_.leading_space && is_space(c) && p < end) {
        const char* after = p;
        if (p_.set.contains(next_char(after))) {
          p = run_end(after, end);
          matches.push_back({static_cast<uint32_t>(begin - start), static_cast<uint32_t>(p - start)});
          continue;
        }
      }
      if (!p_.set.contains(c)) continue;
      p = run_end(p, end);
      matches.push_back({static_cast<uint32_t>(begin - start), static_cast<uint32_t>(p - start)});
    }
  }

 private:
  // The end of the run whose first character ends at p.
  const char* run_end(const char* p, const char* end) const {
    for (uint32_t n = 1; p < end && n != p_.most; ++n) {
      const char* after = p;
      if (!p_.set.contains(next_char(after))) break;
      p = after;
    }
    return p;
  }
  ClassRunPattern p_;
};

}  // namespace

std::unique_ptr<Matcher> make_class_run(const std::string& pattern) {
  std::optional<ClassRunPattern> p = Reader(pattern).read();
  return p ? std::make_unique<ClassRun>(std::move(*p)) : nullptr;
}

}  // namespace birkhoff::text
