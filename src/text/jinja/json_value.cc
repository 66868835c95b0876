#include "text/jinja/json_value.h"

#include <charconv>
#include <limits>

#include "core/error.h"
#include "text/unicode/utf8.h"

namespace birkhoff::text::chat {
namespace {

// Written by hand because the well-known libraries either sort keys, lose long integers or refuse NaN.
class Reader {
  static constexpr size_t kMaxValues = 1'000'000;  // a value takes up to fifty times its text

 public:
  Reader(std::string_view text, bool from_content) : s_(text), from_content_(from_content) {}

  Value document() {
    if (const size_t bad = first_invalid(s_); bad != s_.size()) {
      i_ = bad;
      fail("not UTF-8");
    }
    Value v = value();
    skip_space();
    if (i_ != s_.size()) fail("more text after the value");
    return v;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error("json", what + " at byte " + std::to_string(i_), "one JSON value was expected");
  }
  char peek() const { return i_ < s_.size() ? s_[i_] : '\0'; }
  void skip_space() {
    while (i_ < s_.size() && (s_[i_] == ' ' || s_[i_] == '\t' || s_[i_] == '\n' || s_[i_] == '\r')) ++i_;
  }
  bool literal(std::string_view word) {
    if (s_.substr(i_, word.size()) != word) return false;
    i_ += word.size();
    return true;
  }

  Value value() {
    skip_space();
    if (++values_ > kMaxValues) fail("more than " + std::to_string(kMaxValues) + " values");
    switch (peek()) {
      case '{':
        return dict();
      case '[':
        return list();
      case '"':
        return Value::string(string(), from_content_);
      default:
        break;
    }
    if (literal("null")) return Value::none();
    if (literal("true")) return Value::boolean(true);
    if (literal("false")) return Value::boolean(false);
    if (literal("NaN")) return Value::real(std::numeric_limits<double>::quiet_NaN());
    if (literal("Infinity")) return Value::real(std::numeric_limits<double>::infinity());
    if (literal("-Infinity")) return Value::real(-std::numeric_limits<double>::infinity());
    return number();
  }

  Value number() {
    const size_t begin = i_;
    const auto digits = [&] {
      const size_t from = i_;
      while (peek() >= '0' && peek() <= '9') ++i_;
      return i_ - from;
    };
    if (peek() == '-') ++i_;
    const bool zero = peek() == '0';
    const size_t whole = digits();
    if (whole == 0 || (zero && whole > 1)) fail("no value");
    bool real = false;
    if (peek() == '.') {
      ++i_;
      real = true;
      if (digits() == 0) fail("a digit is missing");
    }
    if (peek() == 'e' || peek() == 'E') {
      ++i_;
      real = true;
      if (peek() == '+' || peek() == '-') ++i_;
      if (digits() == 0) fail("a digit is missing");
    }
    const std::string_view text = s_.substr(begin, i_ - begin);
    if (real) return Value::real(std::strtod(std::string(text).c_str(), nullptr));
    int64_t n = 0;
    if (std::from_chars(text.data(), text.data() + text.size(), n).ec == std::errc()) return Value::integer(n);
    return Value::big(std::string(text));
  }

  unsigned hex4() {
    unsigned v = 0;
    for (int k = 0; k < 4; ++k, ++i_) {
      const char c = peek();
      const int d = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
      if (d < 0) fail("four hexadecimal digits were expected");
      v = v * 16 + static_cast<unsigned>(d);
    }
    return v;
  }

  void escape(std::string& out) {
    const char c = peek();
    ++i_;
    static constexpr std::string_view kFrom = "\"\\/bfnrt", kTo = "\"\\/\b\f\n\r\t";
    if (const size_t at = kFrom.find(c); at != std::string_view::npos) {
      out += kTo[at];
      return;
    }
    if (c != 'u') fail("unknown escape");
    char32_t code = hex4();
    if (code >= 0xd800 && code < 0xdc00 && literal("\\u")) {
      const unsigned low = hex4();
      if (low < 0xdc00 || low > 0xdfff) fail("half a surrogate pair");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    if (code >= 0xd800 && code <= 0xdfff) fail("half a surrogate pair");
    append_char(code, out);
  }

  std::string string() {
    std::string out;
    for (++i_;;) {
      const size_t begin = i_;
      while (i_ < s_.size() && s_[i_] != '"' && s_[i_] != '\\' && static_cast<unsigned char>(s_[i_]) >= 0x20) ++i_;
      out.append(s_, begin, i_ - begin);
      if (i_ >= s_.size()) fail("a string is not closed");
      const char c = s_[i_++];
      if (c == '"') return out;
      if (c != '\\') {
        --i_;
        fail("control character in a string");
      }
      escape(out);
    }
  }

  void enter() {
    if (++depth_ > kMaxDepth - 2) fail("nested deeper than " + std::to_string(kMaxDepth - 2));
    ++i_;
    skip_space();
  }

  Value list() {
    enter();
    std::vector<Value> items;
    while (peek() != ']') {
      items.push_back(value());
      skip_space();
      if (peek() == ']') break;
      if (peek() != ',') fail("',' or ']' was expected");
      ++i_;
      skip_space();
      if (peek() == ']') fail("a value was expected");
    }
    ++i_;
    --depth_;
    return Value::list(std::move(items));
  }

  Value dict() {
    enter();
    auto d = std::make_shared<DictObject>();
    while (peek() != '}') {
      if (peek() != '"') fail("a key in quotes was expected");
      Value key = Value::string(string(), from_content_);
      skip_space();
      if (peek() != ':') fail("':' was expected");
      ++i_;
      d->set(key, value());
      skip_space();
      if (peek() == '}') break;
      if (peek() != ',') fail("',' or '}' was expected");
      ++i_;
      skip_space();
      if (peek() == '}') fail("a key was expected");
    }
    ++i_;
    --depth_;
    return Value::dict(std::move(d));
  }

  std::string_view s_;
  size_t i_ = 0;
  int depth_ = 0;
  size_t values_ = 0;
  bool from_content_;
};

}  // namespace

Value parse_json(std::string_view text, bool from_content) { return Reader(text, from_content).document(); }

}  // namespace birkhoff::text::chat
