#include "text/jinja/jinja_token.h"

#include "core/error.h"
#include "text/jinja/characters.h"

namespace birkhoff::text::chat::jinja {
namespace {

constexpr size_t kMaxSource = size_t{1} << 18;

bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}
bool is_decimal(char c) { return c >= '0' && c <= '9'; }

// Line ends become "\n"; one at the very end is dropped unless the dialect keeps it.
std::string normalize(std::string_view source, Dialect dialect) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (dialect == Dialect::chat && !out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

size_t skip_space(std::string_view s, size_t i) {
  while (i < s.size()) {
    size_t next = i;
    if (!is_space(utf8_next(s, next))) break;
    i = next;
  }
  return i;
}

bool all_space(std::string_view s) { return skip_space(s, 0) == s.size(); }

std::string_view strip_right(std::string_view s) {
  size_t end = 0;
  for (size_t i = 0; i < s.size();)
    if (!is_space(utf8_next(s, i))) end = i;
  return s.substr(0, end);
}

class Lexer {
 public:
  Lexer(std::string_view s, bool trim_blocks) : s_(s), trim_blocks_(trim_blocks) {}

  std::vector<Lexeme> run() {
    while (i_ < s_.size()) root();
    emit(Token::end, "");
    return std::move(out_);
  }

 private:
  void emit(Token token, std::string text) { out_.push_back({token, std::move(text), line_}); }
  void advance(size_t to) {
    for (; i_ < to; ++i_) line_ += s_[i_] == '\n';
  }
  char at(size_t i) const { return i < s_.size() ? s_[i] : '\0'; }
  bool starts(size_t i, std::string_view what) const { return s_.substr(i, what.size()) == what; }

  // Text up to the next tag, then the tag.
  void root() {
    size_t tag = i_;
    while (tag < s_.size() && !(s_[tag] == '{' && (at(tag + 1) == '{' || at(tag + 1) == '%' || at(tag + 1) == '#'))) {
      tag = s_.find('{', tag + 1);
      if (tag == std::string_view::npos) tag = s_.size();
    }
    data(tag);
    if (tag == s_.size()) return;
    const char kind = at(tag + 1);
    size_t inner = tag + 2;
    if (at(inner) == '-' || at(inner) == '+') ++inner;
    if (kind == '#') return comment(tag);
    if (kind == '%') {
      const size_t word = skip_space(s_, inner);
      if (starts(word, "raw")) {
        const size_t close = skip_space(s_, word + 3);
        if (starts(close, "%}") || starts(close, "-%}")) return raw(close);
      }
    }
    advance(inner);
    code(kind == '%');
  }

  // Emits the text before a tag, stripped as the tag's sign and lstrip_blocks ask.
  void data(size_t tag) {
    std::string_view text = s_.substr(i_, tag - i_);
    if (tag < s_.size()) text = strip_before_tag(text, at(tag + 1), at(tag + 2));
    if (!text.empty()) emit(Token::data, std::string(text));
    advance(tag);
  }

  std::string_view strip_before_tag(std::string_view text, char kind, char sign) const {
    if (sign == '-') return strip_right(text);
    if (sign == '+' || kind == '{' || !trim_blocks_) return text;
    const size_t newline = text.rfind('\n');
    const size_t line = newline == std::string_view::npos ? 0 : newline + 1;
    if ((line > 0 || line_start_) && line < text.size() && all_space(text.substr(line))) return text.substr(0, line);
    return text;
  }

  // Moves behind the end of a tag at byte i ("%}", "-%}", "+%}" and the like) and what its sign strips. trim: a newline
  // goes too.
  void close_tag(size_t i, size_t length, bool trim) {
    const char sign = at(i);
    size_t end = i + length;
    if (sign == '-')
      end = skip_space(s_, end);
    else if (sign != '+' && trim && trim_blocks_ && at(end) == '\n')
      ++end;
    line_start_ = at(end - 1) == '\n';
    advance(end);
  }

  void comment(size_t tag) {
    const size_t close = s_.find("#}", tag + 2);
    if (close == std::string_view::npos) template_error(line_, "a comment {# is not closed");
    const bool sign = close > tag + 2 && (s_[close - 1] == '-' || s_[close - 1] == '+');
    close_tag(sign ? close - 1 : close, sign ? 3 : 2, true);
  }

  void raw(size_t close) {
    const int begin_line = line_;
    close_tag(close, at(close) == '-' ? 3 : 2, false);
    for (size_t tag = s_.find("{%", i_); tag != std::string_view::npos; tag = s_.find("{%", tag + 2)) {
      size_t word = tag + 2;
      if (at(word) == '-' || at(word) == '+') ++word;
      word = skip_space(s_, word);
      if (!starts(word, "endraw")) continue;
      const size_t end = skip_space(s_, word + 6);
      const bool sign = at(end) == '-' || at(end) == '+';
      if (!starts(end + sign, "%}")) continue;
      data(tag);
      close_tag(end, sign ? 3 : 2, true);
      return;
    }
    template_error(begin_line, "{% raw %} without {% endraw %}");
  }

  void code(bool block) {
    emit(block ? Token::block_begin : Token::print_begin, "");
    const int begin_line = line_;
    const std::string_view close = block ? "%}" : "}}";
    std::string open;  // brackets that wait to be closed
    while (true) {
      advance(skip_space(s_, i_));
      if (i_ >= s_.size()) template_error(begin_line, block ? "{% is not closed by %}" : "{{ is not closed by }}");
      if (open.empty()) {
        const bool sign = (at(i_) == '-' || (block && at(i_) == '+')) && starts(i_ + 1, close);
        if (sign || starts(i_, close)) {
          emit(block ? Token::block_end : Token::print_end, "");
          close_tag(i_, sign ? 3 : 2, block);
          return;
        }
      }
      token(open);
    }
  }

  void token(std::string& open) {
    const char c = at(i_);
    if (c == '\'' || c == '"') return string(c);
    if (is_decimal(c)) return number();
    if (is_word(c)) {
      size_t end = i_;
      while (end < s_.size() && is_word(s_[end])) ++end;
      emit(Token::name, std::string(s_.substr(i_, end - i_)));
      return advance(end);
    }
    if (c == '(' || c == '[' || c == '{') open += c == '(' ? ')' : c == '[' ? ']' : '}';
    if (c == ')' || c == ']' || c == '}') {
      if (open.empty() || open.back() != c) template_error(line_, std::string("unexpected '") + c + "'");
      open.pop_back();
    }
    for (const std::string_view two : {"//", "**", "==", "!=", ">=", "<="})
      if (starts(i_, two)) {
        emit(Token::op, std::string(two));
        return advance(i_ + 2);
      }
    if (std::string_view("+-/*%~[](){}><=.:|,;").find(c) == std::string_view::npos)
      template_error(line_, std::string("unexpected character '") + c + "'");
    emit(Token::op, std::string(1, c));
    advance(i_ + 1);
  }

  void number() {
    size_t end = i_;
    const auto digits = [&](auto&& ok) {
      const size_t from = end;
      while (ok(at(end)) || (at(end) == '_' && end > from && ok(at(end + 1)))) ++end;
      return end - from;
    };
    const auto hex = [](char c) { return is_decimal(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); };
    Token kind = Token::integer;
    const char base = static_cast<char>(at(i_ + 1) | 0x20);
    if (at(i_) == '0' && (base == 'x' || base == 'o' || base == 'b')) {
      end += 2;
      if (digits(hex) == 0) template_error(line_, "a number without digits");
    } else {
      digits(is_decimal);
      if (at(end) == '.' && is_decimal(at(end + 1)) && !(i_ > 0 && s_[i_ - 1] == '.')) {
        kind = Token::real;
        ++end;
        digits(is_decimal);
      }
      if ((at(end) | 0x20) == 'e') {
        const size_t sign = at(end + 1) == '+' || at(end + 1) == '-';
        if (is_decimal(at(end + 1 + sign))) {
          kind = Token::real;
          end += 1 + sign;
          digits(is_decimal);
        }
      }
    }
    std::string text;
    for (const char c : s_.substr(i_, end - i_))
      if (c != '_') text += c;
    emit(kind, text);
    advance(end);
  }

  // Escapes are those of Python's string literals.
  void string(char quote) {
    std::string text;
    const int begin_line = line_;
    size_t i = i_ + 1;
    while (at(i) != quote || i >= s_.size()) {
      if (i >= s_.size()) template_error(begin_line, "a string is not closed");
      if (at(i) != '\\') {
        text += s_[i++];
        continue;
      }
      if (i + 1 >= s_.size()) template_error(begin_line, "a string is not closed");
      i = escape(i + 1, text);
    }
    emit(Token::string, text);
    advance(i + 1);
  }

  size_t escape(size_t i, std::string& text) const {
    const char c = s_[i];
    static constexpr std::string_view kFrom = "\\'\"abfnrtv", kTo = "\\'\"\a\b\f\n\r\t\v";
    if (c == '\n') return i + 1;
    if (const size_t at_ = kFrom.find(c); at_ != std::string_view::npos) {
      text += kTo[at_];
      return i + 1;
    }
    char32_t code = 0;
    if (c >= '0' && c <= '7') {
      size_t end = i;
      for (; end < i + 3 && at(end) >= '0' && at(end) <= '7'; ++end)
        code = code * 8 + static_cast<char32_t>(s_[end] - '0');
      append_char(code, text);
      return end;
    }
    const size_t length = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (c == 'N') template_error(line_, "\\N escapes are not supported", "write the character itself");
    if (length == 0) {  // an unknown escape stands for itself
      text += '\\';
      return i;
    }
    for (size_t k = i + 1; k <= i + length; ++k) {
      const char h = static_cast<char>(at(k) | 0x20);
      const int d = is_decimal(at(k)) ? at(k) - '0' : h >= 'a' && h <= 'f' ? h - 'a' + 10 : -1;
      if (d < 0) template_error(line_, "an escape with too few hexadecimal digits");
      code = code * 16 + static_cast<char32_t>(d);
    }
    if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) template_error(line_, "an escape that is no character");
    append_char(code, text);
    return i + 1 + length;
  }

  std::string_view s_;
  bool trim_blocks_;  // and lstrip_blocks
  size_t i_ = 0;
  int line_ = 1;
  bool line_start_ = true;
  std::vector<Lexeme> out_;
};

}  // namespace

void template_error(int line, const std::string& what, const std::string& hint) {
  throw Error("chat template", (line > 0 ? "line " + std::to_string(line) + ": " : "") + what, hint);
}

std::vector<Lexeme> tokenize(std::string_view source, Dialect dialect) {
  if (source.size() > kMaxSource)
    template_error(0, std::to_string(source.size()) + " bytes, at most " + std::to_string(kMaxSource) + " are read");
  if (const size_t bad = first_invalid(source); bad != source.size())
    template_error(0, "not UTF-8 at byte " + std::to_string(bad));
  const std::string text = normalize(source, dialect);
  return Lexer(text, dialect == Dialect::chat).run();
}

}  // namespace birkhoff::text::chat::jinja
