// Filters on text, numbers and anything.
#include "text/jinja/jinja_filters.h"

#include <charconv>
#include <cmath>

#include "core/error.h"
#include "text/jinja/characters.h"
#include "text/jinja/jinja_format.h"
#include "text/jinja/json_value.h"
#include "text/jinja/python_print.h"
#include "text/jinja/python_text.h"

namespace birkhoff::text::chat::jinja {
namespace {

Value default_value(Interp&, const Value& v, CallArgs& a) {
  const Value fallback = a.get(0, "default_value", Value::string(""));
  return v.is(Kind::undefined) || (truth(a.get(1, "boolean")) && !truth(v)) ? fallback : v;
}

// tojson as transformers defines it: json.dumps, no ASCII escapes, no HTML escapes.
Value to_json(Interp& in, const Value& v, CallArgs& a) {
  JsonStyle style;
  style.ascii = truth(a.get(0, "ensure_ascii"));
  const Value indent = a.get(1, "indent"), separators = a.get(2, "separators");
  if (indent.is_int()) style.indent = static_cast<int>(std::clamp<int64_t>(indent.as_int(), 0, 64));
  if (indent.is(Kind::string)) in.fail("tojson: an indent of text is not supported", "give the number of blanks");
  if (separators.is_sequence()) {
    if (separators.items().size() != 2 || !separators.items()[0].is(Kind::string) ||
        !separators.items()[1].is(Kind::string))
      in.fail("tojson: separators must be two strings");
    style.item_separator = separators.items()[0].bytes();
    style.key_separator = separators.items()[1].bytes();
  }
  style.max_bytes = static_cast<size_t>(in.limits().output_bytes);
  in.charge_value(v);
  style.sort_keys = truth(a.get(3, "sort_keys"));
  if (v.is(Kind::undefined)) in.fail(v.bytes().empty() ? "tojson of an undefined value" : v.bytes());
  return in.string(json_dump(v, style));
}

Value from_json(Interp& in, const Value& v, CallArgs&) {
  if (!v.is(Kind::string)) in.fail(std::string("from_json: a str was expected, not ") + type_name(v));
  in.charge(8 * static_cast<int64_t>(v.bytes().size()));  // values take much more memory than their text
  return parse_json(v.bytes(), v.text().marked());
}

Value to_string(Interp& in, const Value& v, CallArgs&) { return v.is(Kind::string) ? v : in.string(in.str(v)); }

template <MaskedText (*f)(const MaskedText&)>
Value mapped(Interp& in, const Value& v, CallArgs&) {
  const MaskedText s = in.str(v);
  in.charge_bytes(8 * s.size());
  return in.string(f(s));
}

// Jinja's title: letters after blanks, dashes and opening brackets.
Value title(Interp& in, const Value& v, CallArgs&) {
  const MaskedText s = in.str(v);
  in.charge_bytes(8 * s.size());
  MaskedText out;
  bool start = true;
  std::string piece;
  for (size_t i = 0; i < s.size();) {
    const bool mark = s.marked_at(i);
    const char32_t c = utf8_next(s.bytes(), i);
    piece.clear();
    start ? append_upper(piece, c) : append_lower(piece, c);
    start = is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
    out.append(piece, mark);
  }
  return in.string(std::move(out));
}

Value trim(Interp& in, const Value& v, CallArgs& a) {
  const Value chars = a.get(0, "chars");
  const MaskedText s = in.str(v);
  if (chars.is(Kind::string)) in.charge_search(s.size(), 64 * chars.bytes().size());
  return in.string(py_strip(s, chars.is(Kind::string) ? std::optional(chars.bytes()) : std::nullopt, Side::both));
}

Value replace(Interp& in, const Value& v, CallArgs& a) {
  const Value with = a.need(1, "new", "replace");
  const std::string old = in.str(a.need(0, "old", "replace")).bytes();
  const MaskedText s = in.str(v);
  in.charge_search(s.size(), old.size());
  const size_t places = old.empty() ? s.size() + 1 : s.size() / old.size();
  const MaskedText replacement = in.str(with);
  in.charge_bytes(places * replacement.size());
  return in.string(py_replace(s, old, replacement, int_argument(in, a, 2, "count", -1)));
}

Value center(Interp& in, const Value& v, CallArgs& a) {
  const int64_t width = int_argument(in, a, 0, "width", 80);
  if (width > in.limits().output_bytes) in.fail("a width of " + std::to_string(width) + " is too large");
  return in.string(py_pad(in.str(v), width, " ", Side::both));
}

Value indent(Interp& in, const Value& v, CallArgs& a) {
  const Value width = a.get(0, "width", Value::integer(4));
  const bool first = truth(a.get(1, "first")), blank = truth(a.get(2, "blank"));
  MaskedText pad;
  if (width.is(Kind::string))
    pad = width.text();
  else
    pad.append(
        std::string(static_cast<size_t>(std::clamp<int64_t>(int_argument(in, a, 0, "width", 4), 0, 10'000)), ' '));
  MaskedText s = in.str(v);
  s.append("\n");  // so that a last empty line counts
  const auto lines = py_splitlines(s, false);
  in.charge_bytes(lines.size() * pad.size());
  MaskedText out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i) out.append("\n");
    if (i == 0 ? first : (blank || !lines[i].empty())) out.append(pad);
    out.append(lines[i]);
    if (static_cast<int64_t>(out.size()) > in.limits().output_bytes) break;
  }
  return in.string(std::move(out));
}

Value truncate(Interp& in, const Value& v, CallArgs& a) {
  const int64_t length = int_argument(in, a, 0, "length", 255);
  const bool kill_words = truth(a.get(1, "killwords"));
  const MaskedText end = in.str(a.get(2, "end", Value::string("..."))), s = in.str(v);
  const int64_t leeway = int_argument(in, a, 3, "leeway", 5);
  constexpr int64_t kFar = int64_t{1} << 40;  // more than any text has; keeps the sum from overflowing
  if (static_cast<int64_t>(utf8_count(s.bytes())) <= std::clamp(length, -kFar, kFar) + std::clamp(leeway, -kFar, kFar))
    return in.string(s);
  size_t at = 0;
  for (int64_t k = static_cast<int64_t>(utf8_count(end.bytes())); k < length && at < s.size(); ++k)
    utf8_next(s.bytes(), at);
  if (!kill_words)
    if (const size_t space = s.bytes().substr(0, at).rfind(' '); space != std::string::npos) at = space;
  MaskedText out = s.sub(0, at);
  out.append(end);
  return in.string(std::move(out));
}

Value escape(Interp& in, const Value& v, CallArgs&) {
  const MaskedText s = in.str(v);
  in.charge_bytes(6 * s.size());
  MaskedText out;
  for (size_t i = 0; i < s.size(); ++i) {
    const char c = s.bytes()[i];
    const char* entity = c == '&'    ? "&amp;"
                         : c == '<'  ? "&lt;"
                         : c == '>'  ? "&gt;"
                         : c == '"'  ? "&#34;"
                         : c == '\'' ? "&#39;"
                                     : nullptr;
    if (entity)
      out.append(entity, s.marked_at(i));
    else
      out.append(s, i, i + 1);
  }
  return in.string(std::move(out));
}

Value url_encode(Interp& in, const Value& v, CallArgs&) {
  const MaskedText s = in.str(v);
  MaskedText out;
  for (size_t i = 0; i < s.size(); ++i) {
    const char c = s.bytes()[i];
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
        std::string_view("/_.-~").find(c) != std::string_view::npos) {
      out.append(s, i, i + 1);
    } else {
      char code[4];
      std::snprintf(code, sizeof code, "%%%02X", static_cast<unsigned>(static_cast<unsigned char>(c)));
      out.append(code, s.marked_at(i));
    }
  }
  return in.string(std::move(out));
}

Value word_count(Interp& in, const Value& v, CallArgs&) {
  const std::string s = in.str(v).bytes();
  in.charge_bytes(8 * s.size());
  int64_t words = 0;
  bool inside = false;
  for (size_t i = 0; i < s.size();) {
    const char32_t c = utf8_next(s, i);
    const bool word = is_alpha(c) || is_digit(c) || c == '_';
    words += word && !inside;
    inside = word;
  }
  return Value::integer(words);
}

// str -> number as Python's int(s, base) and float(s) read it: blanks around, underscores between digits.
std::optional<double> read_real(std::string s) {
  s = py_strip(MaskedText(std::move(s)), {}, Side::both).bytes();
  std::erase(s, '_');
  if (s.empty() || s.find_first_of("xXpP(") != std::string::npos) return std::nullopt;
  char* end = nullptr;
  const double d = std::strtod(s.c_str(), &end);
  return end == s.c_str() + s.size() ? std::optional(d) : std::nullopt;
}

std::optional<int64_t> read_integer(std::string s, int base) {
  s = py_strip(MaskedText(std::move(s)), {}, Side::both).bytes();
  std::erase(s, '_');
  bool negative = false;
  if (!s.empty() && (s[0] == '+' || s[0] == '-')) {
    negative = s[0] == '-';
    s.erase(0, 1);
  }
  const auto prefix = [&](char c) { return s.size() > 2 && s[0] == '0' && (s[1] | 0x20) == c; };
  if (base == 0) base = prefix('x') ? 16 : prefix('o') ? 8 : prefix('b') ? 2 : 10;
  if ((base == 16 && prefix('x')) || (base == 8 && prefix('o')) || (base == 2 && prefix('b'))) s.erase(0, 2);
  int64_t n = 0;
  const auto result = std::from_chars(s.data(), s.data() + s.size(), n, base);
  if (s.empty() || s[0] == '-' || result.ec != std::errc() || result.ptr != s.data() + s.size()) return std::nullopt;
  return negative ? -n : n;
}

Value to_int(Interp& in, const Value& v, CallArgs& a) {
  const Value fallback = a.get(0, "default", Value::integer(0));
  const int64_t base = int_argument(in, a, 1, "base", 10);
  if (base != 0 && (base < 2 || base > 36)) in.fail("int: base must be 0 or 2 to 36");
  const auto whole = [&](double d) {
    return std::isfinite(d) && std::fabs(d) < 9.2e18 ? Value::integer(static_cast<int64_t>(d)) : fallback;
  };
  if (v.is_int()) return Value::integer(v.as_int());
  if (v.is(Kind::big)) return v;
  if (v.is(Kind::real)) return whole(v.as_real());
  if (!v.is(Kind::string)) return fallback;
  if (const auto n = read_integer(v.bytes(), static_cast<int>(base))) return Value::integer(*n);
  const auto d = read_real(v.bytes());
  return d ? whole(*d) : fallback;
}

Value to_float(Interp&, const Value& v, CallArgs& a) {
  const Value fallback = a.get(0, "default", Value::real(0));
  if (v.is_number()) return Value::real(v.as_real());
  if (!v.is(Kind::string)) return fallback;
  const auto d = read_real(v.bytes());
  return d ? Value::real(*d) : fallback;
}

Value absolute(Interp& in, const Value& v, CallArgs&) {
  if (v.is_int()) return v.as_int() < 0 ? in.arithmetic("-", Value::integer(0), v) : Value::integer(v.as_int());
  if (v.is(Kind::real)) return Value::real(std::fabs(v.as_real()));
  in.fail(std::string("bad operand type for abs(): '") + type_name(v) + "'");
}

Value round_number(Interp& in, const Value& v, CallArgs& a) {
  const int64_t precision = int_argument(in, a, 0, "precision", 0);
  const std::string method = in.str(a.get(1, "method", Value::string("common"))).bytes();
  if (!v.is_number()) in.fail(std::string("round: a number was expected, not ") + type_name(v));
  if (std::llabs(precision) > 300) in.fail("round: precision beyond 300");
  const double d = v.as_real(), scale = std::pow(10.0, static_cast<double>(precision));
  if (method == "ceil") return Value::real(std::ceil(d * scale) / scale);
  if (method == "floor") return Value::real(std::floor(d * scale) / scale);
  if (method != "common") in.fail("method must be common, ceil or floor");
  if (v.is_int() && precision >= 0) return v;
  // Decimal rounding of the exact binary value, ties to even, as Python does.
  if (precision < 0 || !std::isfinite(d)) {
    const double rounded = std::nearbyint(d * scale) / scale;
    return v.is_int() ? Value::integer(static_cast<int64_t>(rounded)) : Value::real(rounded);
  }
  const int n = std::snprintf(nullptr, 0, "%.*f", static_cast<int>(precision), d);
  std::string digits(static_cast<size_t>(n) + 1, '\0');
  std::snprintf(digits.data(), digits.size(), "%.*f", static_cast<int>(precision), d);
  return Value::real(std::strtod(digits.c_str(), nullptr));
}

Value format(Interp& in, const Value& v, CallArgs& a) {
  if (!a.named.empty() && !a.positional.empty()) in.fail("format takes positional or named arguments, not both");
  if (a.named.empty()) return in.string(percent_format(in, in.str(v), in.tuple(a.positional)));
  auto values = std::make_shared<DictObject>();
  for (const auto& [name, value] : a.named) values->set(name, value);
  a.used = ~uint64_t{0};
  return in.string(percent_format(in, in.str(v), in.container(Value::dict(std::move(values)))));
}

Value attr(Interp& in, const Value& v, CallArgs& a) {
  const std::string name = in.str(a.need(0, "name", "attr")).bytes();
  // Unlike v.name, the filter looks at attributes alone, never at keys.
  if (v.is(Kind::dict) && !find_method(v, name) && !is_refused(v, name))
    return Value::undefined("'dict object' has no attribute '" + name + "'");
  return in.attribute(v, name);
}

const BuiltinTable& value_filters() {
  static const BuiltinTable table = {{"default", {default_value, 2}},
                                     {"d", {default_value, 2}},
                                     {"tojson", {to_json, 4}},
                                     {"from_json", {from_json, 0}},
                                     {"string", {to_string, 0}},
                                     {"safe", {to_string, 0}},
                                     {"upper", {mapped<py_upper>, 0}},
                                     {"lower", {mapped<py_lower>, 0}},
                                     {"capitalize", {mapped<py_capitalize>, 0}},
                                     {"title", {title, 0}},
                                     {"trim", {trim, 1}},
                                     {"replace", {replace, 3}},
                                     {"center", {center, 1}},
                                     {"indent", {indent, 3}},
                                     {"truncate", {truncate, 4}},
                                     {"escape", {escape, 0}},
                                     {"e", {escape, 0}},
                                     {"forceescape", {escape, 0}},
                                     {"urlencode", {url_encode, 0}},
                                     {"wordcount", {word_count, 0}},
                                     {"int", {to_int, 2}},
                                     {"float", {to_float, 1}},
                                     {"abs", {absolute, 0}},
                                     {"round", {round_number, 2}},
                                     {"format", {format, 64}},
                                     {"attr", {attr, 1}}};
  return table;
}

}  // namespace

int64_t int_argument(Interp& in, CallArgs& a, size_t place, std::string_view name, int64_t fallback) {
  const Value v = a.get(place, name, Value::integer(fallback));
  if (v.is(Kind::none)) return fallback;
  if (!v.is_int()) in.fail("argument '" + std::string(name) + "' must be an integer, not " + type_name(v));
  return v.as_int();
}

const BuiltinEntry* look_up(const BuiltinTable& table, std::string_view name) {
  const auto it = table.find(name);
  return it == table.end() ? nullptr : &it->second;
}

const BuiltinEntry* find_filter(std::string_view name) {
  const BuiltinEntry* found = look_up(value_filters(), name);
  return found ? found : look_up(sequence_filters(), name);
}

}  // namespace birkhoff::text::chat::jinja
