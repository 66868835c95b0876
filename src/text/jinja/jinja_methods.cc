// Methods of strings, dicts, lists and the objects of the interpreter. Those that would change their object are not
// here.
#include <algorithm>

#include "core/error.h"
#include "text/jinja/characters.h"
#include "text/jinja/jinja_filters.h"
#include "text/jinja/jinja_format.h"
#include "text/jinja/jinja_interp.h"
#include "text/jinja/python_text.h"
#include "text/unicode/unicode.h"

namespace birkhoff::text::chat::jinja {
namespace {

std::string text_arg(Interp& in, CallArgs& a, size_t place, const char* name, const char* callee) {
  const Value v = a.need(place, name, callee);
  if (!v.is(Kind::string)) in.fail(std::string(callee) + ": a str was expected, not " + type_name(v));
  return v.bytes();
}

std::optional<std::string> optional_text(Interp& in, CallArgs& a, size_t place, const char* name) {
  const Value v = a.get(place, name);
  if (v.is(Kind::none)) return std::nullopt;
  if (!v.is(Kind::string)) in.fail(std::string("argument '") + name + "' must be a str or None, not " + type_name(v));
  return v.bytes();
}

template <Side side>
Value strip(Interp& in, const Value& self, CallArgs& a) {
  const auto chars = optional_text(in, a, 0, "chars");
  if (chars) in.charge_search(self.bytes().size(), 64 * chars->size());
  return in.string(py_strip(self.text(), chars, side));
}

Value texts(Interp& in, std::vector<MaskedText> parts) {
  std::vector<Value> out;
  for (MaskedText& part : parts) out.push_back(in.string(std::move(part)));
  return in.list(std::move(out));
}

template <bool right>
Value split(Interp& in, const Value& self, CallArgs& a) {
  const auto separator = optional_text(in, a, 0, "sep");
  if (separator && separator->empty()) in.fail("empty separator");
  const int64_t limit = int_argument(in, a, 1, "maxsplit", -1);
  in.charge_search(self.bytes().size(), separator ? separator->size() : 0);
  return texts(in, right ? py_rsplit(self.text(), separator, limit) : py_split(self.text(), separator, limit));
}

Value splitlines(Interp& in, const Value& self, CallArgs& a) {
  return texts(in, py_splitlines(self.text(), truth(a.get(0, "keepends"))));
}

template <bool right>
Value partition(Interp& in, const Value& self, CallArgs& a) {
  const std::string separator = text_arg(in, a, 0, "sep", "partition");
  if (separator.empty()) in.fail("empty separator");
  const MaskedText& s = self.text();
  in.charge_search(s.size(), separator.size());
  const size_t at = right ? s.bytes().rfind(separator) : s.bytes().find(separator);
  if (at == std::string::npos)
    return right ? in.tuple({in.string(""), in.string(""), self}) : in.tuple({self, in.string(""), in.string("")});
  return in.tuple({in.string(s.sub(0, at)), in.string(s.sub(at, at + separator.size())),
                   in.string(s.sub(at + separator.size(), s.size()))});
}

// The bytes of self[start:end], where start and end are arguments 1 and 2. None where start lies behind them: not even
// an empty text is found there.
std::optional<std::string_view> window(Interp& in, const Value& self, CallArgs& a, size_t& from) {
  const std::string_view b = self.bytes();
  const auto count = static_cast<int64_t>(utf8_count(b));
  const int64_t start = int_argument(in, a, 1, "start", 0), end = int_argument(in, a, 2, "end", count);
  const auto place = [&](int64_t i) { return std::clamp<int64_t>(i < 0 ? i + count : i, 0, count); };
  const auto offset = [&](int64_t i) {
    size_t at = 0;
    while (i-- > 0) utf8_next(b, at);
    return at;
  };
  from = offset(place(start));
  const size_t to = offset(place(end));
  if (start > count || from > to) return std::nullopt;
  return b.substr(from, to - from);
}

template <bool end>
Value affix(Interp& in, const Value& self, CallArgs& a) {
  const Value v = a.need(0, "prefix", end ? "endswith" : "startswith");
  if (a.positional.size() > 1) in.charge_bytes(8 * self.bytes().size());
  size_t from = 0;
  const std::optional<std::string_view> s =
      a.positional.size() > 1 ? window(in, self, a, from) : std::string_view(self.bytes());
  const auto matches = [&](const Value& p) {
    if (!p.is(Kind::string))
      in.fail(std::string(end ? "endswith" : "startswith") + ": a str or a tuple of str was expected, not " +
              type_name(p));
    return s && (end ? s->ends_with(p.bytes()) : s->starts_with(p.bytes()));
  };
  if (!v.is(Kind::tuple)) return Value::boolean(matches(v));
  return Value::boolean(std::any_of(v.items().begin(), v.items().end(), matches));
}

template <bool end>
Value remove_affix(Interp& in, const Value& self, CallArgs& a) {
  const std::string p = text_arg(in, a, 0, "prefix", "removeprefix");
  const MaskedText& s = self.text();
  const std::string_view b = s.bytes();
  if (end) return b.ends_with(p) ? in.string(s.sub(0, b.size() - p.size())) : self;
  return b.starts_with(p) ? in.string(s.sub(p.size(), b.size())) : self;
}

Value str_replace(Interp& in, const Value& self, CallArgs& a) {
  const std::string old = text_arg(in, a, 0, "old", "replace");
  const Value with = a.need(1, "new", "replace");
  if (!with.is(Kind::string)) in.fail(std::string("replace: a str was expected, not ") + type_name(with));
  in.charge_search(self.bytes().size(), old.size());
  const size_t places = old.empty() ? self.bytes().size() + 1 : self.bytes().size() / old.size();
  if (places * with.bytes().size() > static_cast<size_t>(in.limits().output_bytes))
    in.charge_bytes(places * with.bytes().size());
  return in.string(py_replace(self.text(), old, with.text(), int_argument(in, a, 2, "count", -1)));
}

template <MaskedText (*f)(const MaskedText&)>
Value str_mapped(Interp& in, const Value& self, CallArgs&) {
  in.charge_bytes(8 * self.bytes().size());
  return in.string(f(self.text()));
}

template <Side side>
Value pad(Interp& in, const Value& self, CallArgs& a) {
  const int64_t width = int_argument(in, a, 0, "width", 0);
  const auto fill = optional_text(in, a, 1, "fillchar");
  if (fill && utf8_count(*fill) != 1) in.fail("the fill character must be exactly one character long");
  if (width > in.limits().output_bytes) in.fail("a width of " + std::to_string(width) + " is too large");
  return in.string(py_pad(self.text(), width, fill ? *fill : " ", side));
}

Value zfill(Interp& in, const Value& self, CallArgs& a) {
  const int64_t width = int_argument(in, a, 0, "width", 0);
  if (width > in.limits().output_bytes) in.fail("a width of " + std::to_string(width) + " is too large");
  const std::string& b = self.bytes();
  const size_t sign = !b.empty() && (b[0] == '-' || b[0] == '+');
  MaskedText out = self.text().sub(0, sign);
  out.append(py_pad(self.text().sub(sign, b.size()), width - static_cast<int64_t>(sign), "0", Side::right));
  return in.string(std::move(out));
}

template <bool right, bool must>
Value find(Interp& in, const Value& self, CallArgs& a) {
  const std::string needle = text_arg(in, a, 0, "sub", "find");
  const std::string& b = self.bytes();
  in.charge_bytes(8 * b.size());
  in.charge_search(b.size(), needle.size());
  size_t from = 0;
  const std::optional<std::string_view> part = window(in, self, a, from);
  const size_t at = !part ? std::string::npos : right ? part->rfind(needle) : part->find(needle);
  if (at == std::string::npos) {
    if (must) in.fail("substring not found");
    return Value::integer(-1);
  }
  return Value::integer(static_cast<int64_t>(utf8_count(std::string_view(b).substr(0, from + at))));
}

Value count(Interp& in, const Value& self, CallArgs& a) {
  const Value needle = a.need(0, "sub", "count");
  int64_t n = 0;
  if (!self.is(Kind::string)) {
    in.charge_value(self);
    for (const Value& v : self.items()) n += equal(v, needle);
    return Value::integer(n);
  }
  if (!needle.is(Kind::string)) in.fail(std::string("count: a str was expected, not ") + type_name(needle));
  in.charge_search(self.bytes().size(), needle.bytes().size());
  if (needle.bytes().empty()) return Value::integer(static_cast<int64_t>(utf8_count(self.bytes())) + 1);
  for (size_t at = 0; (at = self.bytes().find(needle.bytes(), at)) != std::string::npos; at += needle.bytes().size())
    ++n;
  return Value::integer(n);
}

template <bool (*f)(char32_t)>
Value all_characters(Interp&, const Value& self, CallArgs&) {
  const std::string& b = self.bytes();
  bool all = !b.empty();
  for (size_t i = 0; i < b.size() && all;) all = f(utf8_next(b, i));
  return Value::boolean(all);
}

// Python's isdigit: decimals, and the digits that stand in superscripts, circles and the like (Numeric_Type=Digit).
bool is_any_digit(char32_t c) {
  static constexpr char32_t kRanges[][2] = {
      {0xb2, 0xb3},     {0xb9, 0xb9},       {0x1369, 0x1371},   {0x19da, 0x19da},   {0x2070, 0x2070},
      {0x2074, 0x2079}, {0x2080, 0x2089},   {0x2460, 0x2468},   {0x2474, 0x247c},   {0x2488, 0x2490},
      {0x24ea, 0x24ea}, {0x24f5, 0x24fd},   {0x24ff, 0x24ff},   {0x2776, 0x277e},   {0x2780, 0x2788},
      {0x278a, 0x2792}, {0x10a40, 0x10a43}, {0x10e60, 0x10e68}, {0x11052, 0x1105a}, {0x1f100, 0x1f10a}};
  return is_digit(c) ||
         std::any_of(std::begin(kRanges), std::end(kRanges), [c](const auto& r) { return c >= r[0] && c <= r[1]; });
}
bool is_numeric(char32_t c) { return is_number(char_classes()(c)); }
bool is_alnum(char32_t c) { return is_alpha(c) || is_numeric(c); }

// Of every character, and true of the empty text.
template <bool (*f)(char32_t)>
Value no_other_character(Interp& in, const Value& self, CallArgs& a) {
  return self.bytes().empty() ? Value::boolean(true) : all_characters<f>(in, self, a);
}
bool is_ascii(char32_t c) { return c < 0x80; }

// Large letters begin words and small ones go on with them.
Value is_title(Interp&, const Value& self, CallArgs&) {
  const std::string& b = self.bytes();
  bool any = false, in_word = false;
  for (size_t i = 0; i < b.size();) {
    const char32_t c = utf8_next(b, i);
    const bool large = is_upper(c), small = is_lower(c);
    if ((large && in_word) || (small && !in_word)) return Value::boolean(false);
    in_word = large || small;
    any |= in_word;
  }
  return Value::boolean(any);
}

template <bool upper>
Value str_is_case(Interp&, const Value& self, CallArgs&) {
  const std::string& b = self.bytes();
  bool any = false;
  for (size_t i = 0; i < b.size();) {
    const char32_t c = utf8_next(b, i);
    if (upper ? is_lower(c) : is_upper(c)) return Value::boolean(false);
    any |= upper ? is_upper(c) : is_lower(c);
  }
  return Value::boolean(any);
}

Value str_join(Interp& in, const Value& self, CallArgs& a) {
  MaskedText out;
  bool first = true;
  for (const Value& v : in.iterate(a.need(0, "iterable", "join"))) {
    if (!v.is(Kind::string)) in.fail(std::string("join: a str was expected, not ") + type_name(v));
    if (!first) out.append(self.text());
    first = false;
    out.append(v.text());
    if (static_cast<int64_t>(out.size()) > in.limits().output_bytes) break;
  }
  return in.string(std::move(out));
}

Value str_format(Interp& in, const Value& self, CallArgs& a) { return in.string(brace_format(in, self.text(), a)); }

Value sequence_index(Interp& in, const Value& self, CallArgs& a) {
  const Value needle = a.need(0, "value", "index");
  in.charge_value(self);
  for (size_t i = 0; i < self.items().size(); ++i)
    if (equal(self.items()[i], needle)) return Value::integer(static_cast<int64_t>(i));
  in.fail("the value is not in the list");
}

Value dict_get(Interp& in, const Value& self, CallArgs& a) {
  in.charge_value(a.need(0, "key", "get"));
  const Value fallback = a.get(1, "default");
  const Value* v = self.as_dict().find(a.need(0, "key", "get"));
  return v ? *v : fallback;
}

template <bool keys, bool values>
Value dict_list(Interp& in, const Value& self, CallArgs&) {
  std::vector<Value> out;
  for (const auto& [key, value] : self.as_dict().entries)
    out.push_back(keys && values ? in.tuple({key, value}) : keys ? key : value);
  return in.list(std::move(out));
}

Value same(Interp&, const Value& self, CallArgs&) { return self; }

Value loop_cycle(Interp& in, const Value& self, CallArgs& a) {
  if (a.positional.empty()) in.fail("no items for cycling given");
  return a.positional[self.as_object<LoopObject>()->index0 % a.positional.size()];
}

Value loop_changed(Interp& in, const Value& self, CallArgs& a) {
  const auto loop = self.as_object<LoopObject>();
  const Value now = in.tuple(a.positional);
  in.charge_value(now);
  const bool changed = !loop->changed_called || !equal(loop->last_changed, now);
  loop->changed_called = true;
  loop->last_changed = now;
  return Value::boolean(changed);
}

Value cycler_next(Interp&, const Value& self, CallArgs&) {
  const auto c = self.as_object<CyclerObject>();
  const Value v = c->items[c->position];
  c->position = (c->position + 1) % c->items.size();
  return v;
}

Value cycler_reset(Interp&, const Value& self, CallArgs&) {
  self.as_object<CyclerObject>()->position = 0;
  return Value::none();
}

const BuiltinTable& string_methods() {
  static const BuiltinTable table = {{"strip", {strip<Side::both>, 1}},
                                     {"lstrip", {strip<Side::left>, 1}},
                                     {"rstrip", {strip<Side::right>, 1}},
                                     {"split", {split<false>, 2}},
                                     {"rsplit", {split<true>, 2}},
                                     {"splitlines", {splitlines, 1}},
                                     {"partition", {partition<false>, 1}},
                                     {"rpartition", {partition<true>, 1}},
                                     {"startswith", {affix<false>, 3}},
                                     {"endswith", {affix<true>, 3}},
                                     {"removeprefix", {remove_affix<false>, 1}},
                                     {"removesuffix", {remove_affix<true>, 1}},
                                     {"replace", {str_replace, 3}},
                                     {"upper", {str_mapped<py_upper>, 0}},
                                     {"lower", {str_mapped<py_lower>, 0}},
                                     {"casefold", {str_mapped<py_lower>, 0}},
                                     {"capitalize", {str_mapped<py_capitalize>, 0}},
                                     {"title", {str_mapped<py_title>, 0}},
                                     {"swapcase", {str_mapped<py_swapcase>, 0}},
                                     {"center", {pad<Side::both>, 2}},
                                     {"ljust", {pad<Side::left>, 2}},
                                     {"rjust", {pad<Side::right>, 2}},
                                     {"zfill", {zfill, 1}},
                                     {"find", {find<false, false>, 3}},
                                     {"rfind", {find<true, false>, 3}},
                                     {"index", {find<false, true>, 3}},
                                     {"rindex", {find<true, true>, 3}},
                                     {"count", {count, 1}},
                                     {"join", {str_join, 1}},
                                     {"format", {str_format, 64}},
                                     {"isalpha", {all_characters<is_alpha>, 0}},
                                     {"isdigit", {all_characters<is_any_digit>, 0}},
                                     {"isdecimal", {all_characters<is_digit>, 0}},
                                     {"isnumeric", {all_characters<is_numeric>, 0}},
                                     {"isalnum", {all_characters<is_alnum>, 0}},
                                     {"isspace", {all_characters<is_space>, 0}},
                                     {"isupper", {str_is_case<true>, 0}},
                                     {"islower", {str_is_case<false>, 0}},
                                     {"istitle", {is_title, 0}},
                                     {"isascii", {no_other_character<is_ascii>, 0}},
                                     {"isprintable", {no_other_character<is_printable>, 0}}};
  return table;
}

const BuiltinTable& sequence_methods() {
  static const BuiltinTable table = {{"index", {sequence_index, 1}}, {"count", {count, 1}}};
  return table;
}

const BuiltinTable& dict_methods() {
  static const BuiltinTable table = {{"get", {dict_get, 2}},
                                     {"items", {dict_list<true, true>, 0}},
                                     {"keys", {dict_list<true, false>, 0}},
                                     {"values", {dict_list<false, true>, 0}},
                                     {"copy", {same, 0}}};
  return table;
}

}  // namespace

const BuiltinEntry* find_method(const Value& self, std::string_view name) {
  static const BuiltinEntry copy{same, 0}, cycle{loop_cycle, 64}, changed{loop_changed, 64}, next{cycler_next, 0},
      reset{cycler_reset, 0};
  switch (self.kind()) {
    case Kind::string:
      return look_up(string_methods(), name);
    case Kind::list:
      if (name == "copy") return &copy;
      [[fallthrough]];
    case Kind::tuple:
      return look_up(sequence_methods(), name);
    case Kind::dict:
      return look_up(dict_methods(), name);
    case Kind::object:
      if (self.as_object<LoopObject>()) return name == "cycle" ? &cycle : name == "changed" ? &changed : nullptr;
      if (self.as_object<CyclerObject>()) return name == "next" ? &next : name == "reset" ? &reset : nullptr;
      return nullptr;
    default:
      return nullptr;
  }
}

bool is_refused(const Value& self, std::string_view name) {
  if (name.starts_with("__")) return true;
  static constexpr std::string_view kList[] = {"append", "clear",  "extend",  "insert",
                                               "pop",    "remove", "reverse", "sort"};
  static constexpr std::string_view kDict[] = {"clear", "pop", "popitem", "setdefault", "update", "fromkeys"};
  static constexpr std::string_view kString[] = {"encode",     "translate",  "maketrans",
                                                 "format_map", "expandtabs", "isidentifier"};
  const auto in = [name](const auto& names) {
    return std::find(std::begin(names), std::end(names), name) != std::end(names);
  };
  return self.is(Kind::list) ? in(kList) : self.is(Kind::dict) ? in(kDict) : self.is(Kind::string) && in(kString);
}

}  // namespace birkhoff::text::chat::jinja
