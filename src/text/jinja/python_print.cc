#include "text/jinja/python_print.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/error.h"
#include "text/jinja/characters.h"

namespace birkhoff::text::chat {
namespace {

void hex_escape(std::string& out, const char* prefix, unsigned value, int digits) {
  static constexpr char kHex[] = "0123456789abcdef";
  out += prefix;
  for (int k = digits - 1; k >= 0; --k) out += kHex[value >> (4 * k) & 15];
}

// Appends the characters of text, each as what escape writes for it (empty: itself). Marks are carried.
template <class Escape>
void append_escaped(const MaskedText& text, MaskedText& out, Escape&& escape) {
  const std::string& s = text.bytes();
  size_t plain = 0;
  for (size_t i = 0; i < s.size();) {
    const size_t begin = i;
    const char32_t c = utf8_next(s, i);
    const std::string replacement = escape(c);
    if (replacement.empty()) continue;
    out.append(text, plain, begin);
    out.append(replacement, text.marked_at(begin));
    plain = i;
  }
  out.append(text, plain, s.size());
}

// What Python and JSON write alike between these quotes; "": not escaped by both.
std::string common_escape(char32_t c, char quote) {
  if (c == static_cast<char32_t>(quote) || c == '\\') return {'\\', static_cast<char>(c)};
  return c == '\n' ? "\\n" : c == '\r' ? "\\r" : c == '\t' ? "\\t" : "";
}

MaskedText string_repr(const MaskedText& text) {
  const std::string& s = text.bytes();
  const char quote = s.find('\'') != std::string::npos && s.find('"') == std::string::npos ? '"' : '\'';
  MaskedText out;
  out.append(std::string(1, quote));
  append_escaped(text, out, [quote](char32_t c) {
    std::string e = common_escape(c, quote);
    if (e.empty() && !is_printable(c)) {
      if (c < 0x100)
        hex_escape(e, "\\x", c, 2);
      else if (c < 0x10000)
        hex_escape(e, "\\u", c, 4);
      else
        hex_escape(e, "\\U", c, 8);
    }
    return e;
  });
  out.append(std::string(1, quote));
  return out;
}

void append_repr(const Value& v, MaskedText& out) {
  switch (v.kind()) {
    case Kind::string:
      out.append(string_repr(v.text()));
      return;
    case Kind::list:
    case Kind::tuple: {
      out.append(v.is(Kind::list) ? "[" : "(");
      bool first = true;
      for (const Value& item : v.items()) {
        if (!first) out.append(", ");
        first = false;
        append_repr(item, out);
      }
      out.append(v.is(Kind::list) ? "]" : v.items().size() == 1 ? ",)" : ")");
      return;
    }
    case Kind::dict: {
      out.append("{");
      bool first = true;
      for (const auto& [key, value] : v.as_dict().entries) {
        if (!first) out.append(", ");
        first = false;
        append_repr(key, out);
        out.append(": ");
        append_repr(value, out);
      }
      out.append("}");
      return;
    }
    case Kind::undefined:
      out.append("Undefined");
      return;
    default:
      out.append(python_str(v));
  }
}

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, MaskedText& out) : style_(style), out_(out) {
    separator_ = !style.item_separator.empty() ? style.item_separator : style.indent < 0 ? ", " : ",";
  }
  void write(const Value& v) {
    switch (v.kind()) {
      case Kind::none:
        return out_.append("null");
      case Kind::boolean:
        return out_.append(v.as_int() ? "true" : "false");
      case Kind::integer:
        return out_.append(std::to_string(v.as_int()));
      case Kind::big:
        return out_.append(v.bytes());
      case Kind::real:
        return out_.append(float_json(v.as_real()));
      case Kind::string:
        return json_string(v.text(), style_.ascii, out_);
      case Kind::list:
      case Kind::tuple:
        return write_list(v.items());
      case Kind::dict:
        return write_dict(v.as_dict());
      default:
        throw Error("chat template", std::string("Object of type ") + type_name(v) + " is not JSON serializable",
                    "test with `is defined` before tojson");
    }
  }

 private:
  void write_list(const std::vector<Value>& items) {
    if (items.empty()) return out_.append("[]");
    out_.append("[");
    ++level_;
    for (size_t i = 0; i < items.size(); ++i) {
      next_line(i);
      write(items[i]);
    }
    --level_;
    end_line();
    out_.append("]");
  }

  void write_dict(const DictObject& dict) {
    if (dict.entries.empty()) return out_.append("{}");
    std::vector<std::pair<Value, Value>> entries = dict.entries;
    if (style_.sort_keys)
      std::stable_sort(entries.begin(), entries.end(),
                       [](const auto& a, const auto& b) { return compare(a.first, b.first) < 0; });
    out_.append("{");
    ++level_;
    for (size_t i = 0; i < entries.size(); ++i) {
      next_line(i);
      write_key(entries[i].first);
      out_.append(style_.key_separator);
      write(entries[i].second);
    }
    --level_;
    end_line();
    out_.append("}");
  }

  void write_key(const Value& key) {
    if (key.is(Kind::string)) return json_string(key.text(), style_.ascii, out_);
    if (!key.is_number() && !key.is(Kind::none))
      throw Error("chat template", std::string("keys must be str, int, float, bool or None, not ") + type_name(key));
    out_.append("\"");
    write(key);
    out_.append("\"");
  }

  void next_line(size_t i) {
    if (out_.size() > style_.max_bytes)
      throw Error("chat template", "JSON of more than " + std::to_string(style_.max_bytes) + " bytes");
    if (i) out_.append(separator_);
    end_line();
  }
  void end_line() {
    if (style_.indent < 0) return;
    out_.append("\n");
    out_.append(std::string(static_cast<size_t>(style_.indent) * level_, ' '));
  }

  const JsonStyle& style_;
  MaskedText& out_;
  std::string separator_;
  size_t level_ = 0;
};

}  // namespace

std::string float_repr(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d < 0 ? "-inf" : "inf";
  char buffer[40];
  char* const end = std::to_chars(buffer, buffer + sizeof buffer - 1, d, std::chars_format::scientific).ptr;
  *end = '\0';
  std::string digits;  // of the shortest form that reads back as d
  int exponent = 0;
  const bool negative = buffer[0] == '-';
  for (const char* p = buffer + negative; p != end; ++p) {
    if (*p == 'e') {
      exponent = std::atoi(p + 1);
      break;
    }
    if (*p != '.') digits += *p;
  }
  std::string out = negative ? "-" : "";
  if (exponent >= -4 && exponent < 16) {
    const int count = static_cast<int>(digits.size());
    if (exponent < 0) return out + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
    if (count <= exponent + 1) return out + digits + std::string(static_cast<size_t>(exponent + 1 - count), '0') + ".0";
    return out + digits.substr(0, static_cast<size_t>(exponent) + 1) + "." +
           digits.substr(static_cast<size_t>(exponent) + 1);
  }
  out += digits.substr(0, 1);
  if (digits.size() > 1) out += "." + digits.substr(1);
  const std::string power = std::to_string(std::abs(exponent));
  return out + (exponent < 0 ? "e-" : "e+") + (power.size() < 2 ? "0" : "") + power;
}

std::string float_json(double d) {
  if (std::isnan(d)) return "NaN";
  if (std::isinf(d)) return d < 0 ? "-Infinity" : "Infinity";
  return float_repr(d);
}

MaskedText python_repr(const Value& v) {
  MaskedText out;
  append_repr(v, out);
  return out;
}

MaskedText python_str(const Value& v) {
  switch (v.kind()) {
    case Kind::undefined:
      return {};
    case Kind::none:
      return MaskedText("None");
    case Kind::boolean:
      return MaskedText(v.as_int() ? "True" : "False");
    case Kind::integer:
      return MaskedText(std::to_string(v.as_int()));
    case Kind::real:
      return MaskedText(float_repr(v.as_real()));
    case Kind::big:
    case Kind::string:
      return v.text();
    case Kind::object:
      return MaskedText("<object>");
    default:
      return python_repr(v);
  }
}

void json_string(const MaskedText& text, bool ascii, MaskedText& out) {
  out.append("\"");
  append_escaped(text, out, [ascii](char32_t c) {
    std::string e = common_escape(c, '"');
    if (!e.empty()) return e;
    if (c == '\b') {
      e = "\\b";
    } else if (c == '\f') {
      e = "\\f";
    } else if (c < 0x20 || (ascii && c >= 0x7f && c < 0x10000 && c != 0x7f)) {
      hex_escape(e, "\\u", c, 4);
    } else if (ascii && c >= 0x10000) {
      hex_escape(e, "\\u", 0xd800 + ((c - 0x10000) >> 10), 4);
      hex_escape(e, "\\u", 0xdc00 + ((c - 0x10000) & 0x3ff), 4);
    }
    return e;
  });
  out.append("\"");
}

MaskedText json_dump(const Value& v, const JsonStyle& style) {
  MaskedText out;
  JsonWriter(style, out).write(v);
  return out;
}

}  // namespace birkhoff::text::chat
