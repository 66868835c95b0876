#include "text/jinja/jinja_format.h"

#include <cmath>
#include <cstdio>

#include "core/error.h"
#include "text/jinja/characters.h"
#include "text/jinja/python_print.h"
#include "text/jinja/python_text.h"

namespace birkhoff::text::chat::jinja {
namespace {

struct Spec {
  std::string fill = " ";
  char align = 0, sign = '-', type = 0;
  bool alternate = false, comma = false, zero = false, sign_given = false;
  int width = 0, precision = -1;
};

int read_int(Interp& in, std::string_view s, size_t& i) {
  int n = 0;
  for (; i < s.size() && s[i] >= '0' && s[i] <= '9'; ++i)
    if ((n = n * 10 + (s[i] - '0')) > 100'000) in.fail("a width or precision beyond 100000");
  return n;
}

std::string printf_real(const char* flags, int precision, char type, double d) {
  char pattern[16];
  std::snprintf(pattern, sizeof pattern, "%%%s.*%c", flags, type);
  const int n = std::snprintf(nullptr, 0, pattern, precision, d);
  std::string out(static_cast<size_t>(n) + 1, '\0');
  std::snprintf(out.data(), out.size(), pattern, precision, d);
  out.pop_back();
  return out;
}

std::string digits_of(uint64_t n, unsigned base, bool upper) {
  const std::string_view symbols = upper ? "0123456789ABCDEF" : "0123456789abcdef";
  std::string out;
  for (bool first = true; first || n > 0; first = false, n /= base) out.insert(out.begin(), symbols[n % base]);
  return out;
}

void group_thousands(std::string& digits) {
  size_t end = digits.find_first_not_of("0123456789");
  if (end == std::string::npos) end = digits.size();
  for (size_t i = end; i > 3; i -= 3) digits.insert(i - 3, ",");
}

// A number without padding; the sign stands apart.
std::string format_number(Interp& in, const Value& v, const Spec& spec, std::string& sign) {
  const char t = spec.type;
  const bool whole =
      t == 'd' || t == 'i' || t == 'u' || t == 'x' || t == 'X' || t == 'o' || t == 'b' || (t == 0 && v.is_int());
  const double d = v.as_real();
  const bool negative = whole && v.is_int() ? v.as_int() < 0 : std::signbit(d);
  sign = negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
  std::string body;
  if (whole) {
    if (!v.is_int() && std::fabs(d) >= 9.2e18) in.fail("a number beyond 64 bits cannot be formatted so");
    const int64_t n = v.is_int() ? v.as_int() : static_cast<int64_t>(d);
    const uint64_t magnitude = n < 0 ? ~static_cast<uint64_t>(n) + 1 : static_cast<uint64_t>(n);
    const unsigned base = t == 'x' || t == 'X' ? 16 : t == 'o' ? 8 : t == 'b' ? 2 : 10;
    body = digits_of(magnitude, base, t == 'X');
    if (spec.alternate && base != 10) sign += std::string("0") + t;
    if (static_cast<int>(body.size()) < spec.precision)
      body.insert(0, static_cast<size_t>(spec.precision) - body.size(), '0');
  } else if (t == 0 && spec.precision < 0) {
    body = float_repr(std::fabs(d));
  } else if (t == '%') {
    body = printf_real("", spec.precision < 0 ? 6 : spec.precision, 'f', std::fabs(d) * 100) + "%";
  } else {
    body =
        printf_real(spec.alternate ? "#" : "", spec.precision < 0 ? 6 : spec.precision, t == 0 ? 'g' : t, std::fabs(d));
  }
  if (spec.comma) group_thousands(body);
  return body;
}

MaskedText padded(const Spec& spec, const std::string& sign, const MaskedText& body, char default_align) {
  const char align = spec.align ? spec.align : spec.zero && default_align == '>' ? '=' : default_align;
  MaskedText out(align == '=' ? "" : sign);
  out.append(body);
  const std::string fill = spec.zero && (!spec.align || spec.align == '=') ? "0" : spec.fill;
  if (align == '=') {
    MaskedText whole(sign);
    whole.append(py_pad(out, spec.width - static_cast<int64_t>(sign.size()), fill, Side::right));
    return whole;
  }
  if (align == '^') {  // unlike str.center, format puts the odd blank on the right
    const int64_t missing = spec.width - static_cast<int64_t>(utf8_count(out.bytes()));
    if (missing > 0) out = py_pad(out, spec.width - (missing - missing / 2), fill, Side::right);
    return py_pad(out, spec.width, fill, Side::left);
  }
  return py_pad(out, spec.width, fill, align == '<' ? Side::left : Side::right);
}

MaskedText cut(const MaskedText& text, int precision) {
  if (precision < 0) return text;
  size_t at = 0;
  for (int k = 0; k < precision && at < text.size(); ++k) utf8_next(text.bytes(), at);
  return text.sub(0, at);
}

Value mapping_value(Interp& in, const Value& values, std::string_view f, size_t& i) {
  const size_t close = f.find(')', i);
  if (close == std::string_view::npos) in.fail("incomplete format key");
  if (!values.is(Kind::dict)) in.fail("format requires a mapping");
  const std::string key(f.substr(i + 1, close - i - 1));
  i = close + 1;
  const Value* v = values.as_dict().find(std::string_view(key));
  if (!v) in.fail("format: no key '" + key + "'");
  return *v;
}

// What %c writes: a text of one character, or the one of a code point.
Value one_character(Interp& in, const Value& v) {
  if (v.is(Kind::string) && utf8_count(v.bytes()) == 1) return v;
  if (!v.is_int()) in.fail("%c requires an integer or a single character");
  const int64_t c = v.as_int();
  if (c < 0 || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) in.fail("%c: " + std::to_string(c) + " is no character");
  std::string bytes;
  append_char(static_cast<char32_t>(c), bytes);
  return in.string(std::move(bytes));
}

// Flags, width, precision and type of a conversion from f[i] on.
Spec read_conversion(Interp& in, std::string_view f, size_t& i) {
  Spec spec;
  for (; i < f.size() && std::string_view("-+ 0#").find(f[i]) != std::string_view::npos; ++i) {
    if (f[i] == '-') spec.align = '<';
    if (f[i] == '+' || (f[i] == ' ' && spec.sign != '+')) spec.sign = f[i];
    if (f[i] == '0') spec.zero = true;
    if (f[i] == '#') spec.alternate = true;
  }
  spec.width = read_int(in, f, i);
  if (i < f.size() && f[i] == '.') spec.precision = read_int(in, f, ++i);
  if (i >= f.size()) in.fail("incomplete format");
  spec.type = f[i++];
  return spec;
}

MaskedText converted(Interp& in, Spec spec, Value value) {
  if (spec.type == 'c') {
    value = one_character(in, value);
    spec.type = 's';
    spec.precision = -1;
  }
  if (spec.type == 's' || spec.type == 'r')
    return padded(spec, "", cut(spec.type == 'r' ? python_repr(value) : in.str(value), spec.precision), '>');
  if (std::string_view("diuxXofFeEgG").find(spec.type) == std::string_view::npos)
    in.fail(std::string("unsupported format character '") + spec.type + "'");
  if (!value.is_number())
    in.fail(std::string("%") + spec.type + " format: a number is required, not " + type_name(value));
  if (spec.align == '<') spec.zero = false;
  std::string sign;
  const MaskedText body(format_number(in, value, spec, sign));
  return padded(spec, sign, body, '>');
}

}  // namespace

MaskedText percent_format(Interp& in, const MaskedText& format, const Value& values) {
  const std::string_view f = format.bytes();
  const bool many = values.is(Kind::tuple);
  size_t used = 0;
  bool named = false;
  const auto next = [&]() -> Value {
    if (used >= (many ? values.items().size() : 1)) in.fail("not enough arguments for format string");
    return many ? values.items()[used++] : (++used, values);
  };
  MaskedText out;
  for (size_t i = 0; i < f.size();) {
    const size_t percent = std::min(f.find('%', i), f.size());
    out.append(format, i, percent);
    in.check_size(out.size());
    if (percent == f.size()) break;
    i = percent + 1;
    Value value;
    bool keyed = false;
    if (i < f.size() && f[i] == '(') {
      value = mapping_value(in, values, f, i);
      keyed = named = true;
    }
    const Spec spec = read_conversion(in, f, i);
    if (spec.type == '%') {
      out.append("%");
      continue;
    }
    if (!keyed) value = next();
    out.append(converted(in, spec, value));
  }
  // One value that could be asked for keys may stay unused.
  const bool mapping = values.is(Kind::dict) || values.is(Kind::list) || values.is(Kind::undefined);
  if (!named && used < (many ? values.items().size() : mapping ? 0 : 1))
    in.fail("not all arguments converted during string formatting");
  return out;
}

namespace {

Spec read_spec(Interp& in, std::string_view s) {
  Spec spec;
  size_t i = 0;
  const auto is_align = [&](size_t k) {
    return k < s.size() && std::string_view("<>^=").find(s[k]) != std::string_view::npos;
  };
  const size_t fill = s.empty() ? 0 : utf8_length(static_cast<unsigned char>(s[0]));
  if (fill && is_align(fill)) {
    spec.fill = std::string(s.substr(0, fill));
    spec.align = s[fill];
    i = fill + 1;
  } else if (is_align(0)) {
    spec.align = s[i++];
  }
  if (i < s.size() && (s[i] == '+' || s[i] == '-' || s[i] == ' ')) spec.sign = s[i++], spec.sign_given = true;
  if (i < s.size() && s[i] == '#') spec.alternate = true, ++i;
  if (i < s.size() && s[i] == '0') spec.zero = true, ++i;
  spec.width = read_int(in, s, i);
  if (i < s.size() && s[i] == ',') spec.comma = true, ++i;
  if (i < s.size() && s[i] == '.') spec.precision = read_int(in, s, ++i);
  if (i < s.size()) spec.type = s[i++];
  if (i != s.size() || (spec.type && std::string_view("sdxXobfFeEgG%").find(spec.type) == std::string_view::npos))
    in.fail("unsupported format spec '" + std::string(s.substr(0, 40)) + "'");
  return spec;
}

MaskedText format_value(Interp& in, const Value& v, std::string_view text) {
  const Spec spec = read_spec(in, text);
  if (text.empty()) return in.str(v);
  if (v.is_number() && !v.is(Kind::big) && spec.type != 's') {
    if (v.is(Kind::real) && spec.type && std::string_view("dxXob").find(spec.type) != std::string_view::npos)
      in.fail(std::string("unknown format code '") + spec.type + "' for an object of type 'float'");
    std::string sign;
    const MaskedText body(format_number(in, v, spec, sign));
    return padded(spec, sign, body, '>');
  }
  if (spec.type && (spec.type != 's' || !v.is(Kind::string)))
    in.fail(std::string("unknown format code '") + spec.type + "' for an object of type '" + type_name(v) + "'");
  if (!v.is(Kind::string)) in.fail(std::string("unsupported format string for ") + type_name(v));
  if (spec.sign_given || spec.comma || spec.alternate || spec.align == '=')
    in.fail("a sign, ',', '#' or '=' is not allowed in the format of a string");
  return padded(spec, "", cut(in.str(v), spec.precision), '<');
}

// The field's name with its attributes and subscripts.
Value field_value(Interp& in, std::string_view field, CallArgs& args, int64_t& automatic) {
  size_t end = std::min(field.find_first_of(".["), field.size());
  const std::string_view head = field.substr(0, end);
  Value v;
  if (head.empty() || (head[0] >= '0' && head[0] <= '9')) {
    size_t i = 0;
    const auto place = static_cast<size_t>(head.empty() ? automatic++ : read_int(in, head, i));
    if (place >= args.positional.size()) in.fail("format: index " + std::to_string(place) + " out of range");
    v = args.positional[place];
  } else {
    v = args.need(SIZE_MAX, head, "format");
  }
  while (end < field.size()) {
    const bool subscript = field[end] == '[';
    const size_t stop = subscript ? field.find(']', end) : std::min(field.find_first_of(".[", end + 1), field.size());
    if (stop == std::string_view::npos) in.fail("format: missing ']'");
    const std::string name(field.substr(end + 1, stop - end - 1));
    const bool number =
        subscript && !name.empty() && name.find_first_not_of("0123456789") == std::string::npos && name.size() < 18;
    if (!subscript && name.starts_with("_")) in.fail("access to '" + name + "' is refused");
    v = number      ? in.item(v, Value::integer(std::stoll(name)))
        : subscript ? in.item(v, Value::string(name))
                    : in.attribute(v, name);
    end = stop + (subscript ? 1 : 0);
  }
  return v;
}

}  // namespace

MaskedText brace_format(Interp& in, const MaskedText& format, CallArgs& args) {
  const std::string_view f = format.bytes();
  MaskedText out;
  int64_t automatic = 0;
  for (size_t i = 0; i < f.size();) {
    const size_t brace = std::min(f.find_first_of("{}", i), f.size());
    out.append(format, i, brace);
    if (brace == f.size()) break;
    if (brace + 1 < f.size() && f[brace + 1] == f[brace]) {
      out.append(format, brace, brace + 1);
      i = brace + 2;
      continue;
    }
    const size_t close = f[brace] == '}' ? std::string_view::npos : f.find('}', brace);
    if (close == std::string_view::npos) in.fail(std::string("format: single '") + f[brace] + "'");
    std::string_view field = f.substr(brace + 1, close - brace - 1), spec;
    if (field.find('{') != std::string_view::npos) in.fail("format: nested fields are not supported");
    if (const size_t colon = field.find(':'); colon != std::string_view::npos) {
      spec = field.substr(colon + 1);
      field = field.substr(0, colon);
    }
    const bool repr = field.ends_with("!r");
    if (repr || field.ends_with("!s")) field.remove_suffix(2);
    Value v = field_value(in, field, args, automatic);
    if (repr) v = in.string(python_repr(v));
    out.append(format_value(in, v, spec));
    in.charge_bytes(out.size());
    i = close + 1;
  }
  return out;
}

}  // namespace birkhoff::text::chat::jinja
