// Filters on sequences and mappings. Where Jinja makes a generator, these make a list.
#include <algorithm>

#include "core/error.h"
#include "text/jinja/characters.h"
#include "text/jinja/jinja_filters.h"
#include "text/jinja/python_text.h"

namespace birkhoff::text::chat::jinja {
namespace {

Value length(Interp& in, const Value& v, CallArgs&) {
  switch (v.kind()) {
    case Kind::undefined:
      return Value::integer(0);
    case Kind::string:
      in.charge_bytes(v.bytes().size());
      return Value::integer(static_cast<int64_t>(utf8_count(v.bytes())));
    case Kind::list:
    case Kind::tuple:
      return Value::integer(static_cast<int64_t>(v.items().size()));
    case Kind::dict:
      return Value::integer(static_cast<int64_t>(v.as_dict().entries.size()));
    default:
      in.fail(std::string("object of type '") + type_name(v) + "' has no len()");
  }
}

Value join(Interp& in, const Value& v, CallArgs& a) {
  const MaskedText separator = in.str(a.get(0, "d", Value::string("")));
  const Value attribute = a.get(1, "attribute");
  MaskedText out;
  bool first = true;
  for (const Value& item : in.iterate(v)) {
    if (!first) out.append(separator);
    first = false;
    out.append(in.str(attribute.is(Kind::none) ? item : attribute_path(in, item, attribute)));
    if (static_cast<int64_t>(out.size()) > in.limits().output_bytes) break;
  }
  return in.string(std::move(out));
}

Value first(Interp& in, const Value& v, CallArgs&) {
  const auto items = in.iterate(v);
  return items.empty() ? Value::undefined("no first item, the sequence is empty") : items.front();
}

Value last(Interp& in, const Value& v, CallArgs&) {
  const auto items = in.iterate(v);
  return items.empty() ? Value::undefined("no last item, the sequence is empty") : items.back();
}

Value to_list(Interp& in, const Value& v, CallArgs&) { return in.list(in.iterate(v)); }

Value reverse(Interp& in, const Value& v, CallArgs&) {
  if (v.is(Kind::string)) return in.string(py_reverse(v.text()));
  auto items = in.iterate(v);
  std::reverse(items.begin(), items.end());
  return in.list(std::move(items));
}

Value items(Interp& in, const Value& v, CallArgs&) {
  if (v.is(Kind::undefined)) return in.list({});
  if (!v.is(Kind::dict)) in.fail("can only get item pairs from a mapping");
  std::vector<Value> out;
  for (const auto& [key, value] : v.as_dict().entries) out.push_back(in.tuple({key, value}));
  return in.list(std::move(out));
}

// Key of a sort: one path, or several joined by commas, as a tuple.
Value sort_key(Interp& in, const Value& v, const Value& attribute, bool case_sensitive) {
  if (attribute.is(Kind::none)) return folded(in, v, case_sensitive);
  if (attribute.is(Kind::string) && attribute.bytes().find(',') != std::string::npos) {
    std::vector<Value> keys;
    for (const MaskedText& path : py_split(attribute.text(), ",", -1))
      keys.push_back(folded(in, attribute_path(in, v, Value::string(path)), case_sensitive));
    return in.tuple(std::move(keys));
  }
  return folded(in, attribute_path(in, v, attribute), case_sensitive);
}

std::vector<Value> sorted(Interp& in, const std::vector<Value>& values, const std::vector<Value>& keys,
                          bool descending) {
  std::vector<size_t> order(values.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t x, size_t y) {
    in.charge(3 + std::min(keys[x].weight(), keys[y].weight()));
    for (const Value* key : {&keys[x], &keys[y]})
      if (key->is(Kind::undefined)) in.fail(key->bytes().empty() ? "a value to sort by is undefined" : key->bytes());
    const int c = compare(keys[x], keys[y]);
    return descending ? c > 0 : c < 0;
  });
  std::vector<Value> out;
  for (const size_t i : order) out.push_back(values[i]);
  return out;
}

Value sort(Interp& in, const Value& v, CallArgs& a) {
  const bool descending = truth(a.get(0, "reverse")), case_sensitive = truth(a.get(1, "case_sensitive"));
  const Value attribute = a.get(2, "attribute");
  const auto values = in.iterate(v);
  std::vector<Value> keys;
  for (const Value& item : values) keys.push_back(sort_key(in, item, attribute, case_sensitive));
  return in.list(sorted(in, values, keys, descending));
}

Value dictsort(Interp& in, const Value& v, CallArgs& a) {
  if (!v.is(Kind::dict)) in.fail(std::string("dictsort: a mapping was expected, not ") + type_name(v));
  const bool case_sensitive = truth(a.get(0, "case_sensitive"));
  const std::string by = in.str(a.get(1, "by", Value::string("key"))).bytes();
  if (by != "key" && by != "value") in.fail("you can only sort by either \"key\" or \"value\"");
  std::vector<Value> pairs, keys;
  for (const auto& [key, value] : v.as_dict().entries) {
    pairs.push_back(in.tuple({key, value}));
    keys.push_back(folded(in, by == "key" ? key : value, case_sensitive));
  }
  return in.list(sorted(in, pairs, keys, truth(a.get(2, "reverse"))));
}

Value unique(Interp& in, const Value& v, CallArgs& a) {
  const bool case_sensitive = truth(a.get(0, "case_sensitive"));
  const Value attribute = a.get(1, "attribute");
  DictObject seen;
  std::vector<Value> out;
  for (const Value& item : in.iterate(v)) {
    const Value key = sort_key(in, item, attribute, case_sensitive);
    in.charge_value(key);
    if (seen.find(key)) continue;
    seen.set(key, item);
    out.push_back(item);
  }
  return in.list(std::move(out));
}

template <int sign>
Value extreme(Interp& in, const Value& v, CallArgs& a) {
  const bool case_sensitive = truth(a.get(0, "case_sensitive"));
  const Value attribute = a.get(1, "attribute");
  Value best = Value::undefined("no aggregated item, the sequence is empty"), best_key;
  bool any = false;
  for (const Value& item : in.iterate(v)) {
    Value key = sort_key(in, item, attribute, case_sensitive);
    in.charge_value(key);
    if (any && sign * compare(key, best_key) <= 0) continue;
    any = true;
    best = item;
    best_key = std::move(key);
  }
  return best;
}

Value sum(Interp& in, const Value& v, CallArgs& a) {
  const Value attribute = a.get(0, "attribute");
  Value total = a.get(1, "start", Value::integer(0));
  for (const Value& item : in.iterate(v))
    total = in.arithmetic("+", total, attribute.is(Kind::none) ? item : attribute_path(in, item, attribute));
  return total;
}

Value batch(Interp& in, const Value& v, CallArgs& a) {
  const int64_t size = int_argument(in, a, 0, "linecount", 0);
  const Value fill = a.get(1, "fill_with");
  if (size < 1 || size > in.limits().range) in.fail("batch: a size of " + std::to_string(size) + " is out of range");
  std::vector<Value> out, row;
  for (const Value& item : in.iterate(v)) {
    if (static_cast<int64_t>(row.size()) == size) out.push_back(in.list(std::exchange(row, {})));
    row.push_back(item);
  }
  if (!row.empty()) {
    if (!fill.is(Kind::none)) row.resize(static_cast<size_t>(size), fill);
    out.push_back(in.list(std::move(row)));
  }
  return in.list(std::move(out));
}

Value slice(Interp& in, const Value& v, CallArgs& a) {
  const int64_t slices = int_argument(in, a, 0, "slices", 0);
  const Value fill = a.get(1, "fill_with");
  if (slices < 1 || slices > in.limits().range)
    in.fail("slice: a count of " + std::to_string(slices) + " is out of range");
  const auto values = in.iterate(v);
  const auto n = static_cast<int64_t>(values.size()), per = n / slices, longer = n % slices;
  std::vector<Value> out;
  int64_t offset = 0;
  for (int64_t k = 0; k < slices; ++k) {
    const int64_t start = offset + k * per;
    if (k < longer) ++offset;
    std::vector<Value> row(values.begin() + start, values.begin() + offset + (k + 1) * per);
    if (!fill.is(Kind::none) && k >= longer) row.push_back(fill);
    out.push_back(in.list(std::move(row)));
  }
  return in.list(std::move(out));
}

Value groupby(Interp& in, const Value& v, CallArgs& a) {
  const Value attribute = a.need(0, "attribute", "groupby"), fallback = a.get(1, "default");
  const bool case_sensitive = truth(a.get(2, "case_sensitive"));
  const auto values = in.iterate(v);
  const auto plain = [&](const Value& item) {
    Value key = attribute_path(in, item, attribute);
    return key.is(Kind::undefined) && !fallback.is(Kind::none) ? fallback : key;
  };
  std::vector<Value> keys;
  for (const Value& item : values) keys.push_back(folded(in, plain(item), case_sensitive));
  std::vector<Value> out, group;
  Value current;
  const auto flush = [&] {
    if (!group.empty()) out.push_back(in.tuple({plain(group.front()), in.list(std::exchange(group, {}))}));
  };
  for (const Value& item : sorted(in, values, keys, false)) {
    const Value key = folded(in, plain(item), case_sensitive);
    if (!group.empty() && !equal(key, current)) flush();
    current = key;
    group.push_back(item);
  }
  flush();
  return in.list(std::move(out));
}

// map, select and their like take anything false for nothing.
std::vector<Value> elements(Interp& in, const Value& v) { return truth(v) ? in.iterate(v) : std::vector<Value>(); }

// What follows the name of a filter or test in map, select and their like.
CallArgs rest_of(const CallArgs& a, size_t from) {
  CallArgs rest;
  if (a.positional.size() > from)
    rest.positional.assign(a.positional.begin() + static_cast<std::ptrdiff_t>(from), a.positional.end());
  return rest;
}

Value map(Interp& in, const Value& v, CallArgs& a) {
  std::vector<Value> out;
  if (a.positional.empty()) {
    const Value attribute = a.need(SIZE_MAX, "attribute", "map"), fallback = a.get(SIZE_MAX, "default");
    for (const Value& item : elements(in, v)) {
      Value found = attribute_path(in, item, attribute);
      out.push_back(found.is(Kind::undefined) && !fallback.is(Kind::none) ? fallback : found);
    }
    return in.list(std::move(out));
  }
  const std::string filter = in.str(a.positional[0]).bytes();
  for (const Value& item : elements(in, v)) {
    CallArgs rest = rest_of(a, 1);
    rest.named = a.named;
    out.push_back(in.apply_filter(filter, item, rest));
  }
  a.used = ~uint64_t{0};
  return in.list(std::move(out));
}

template <bool keep, bool by_attribute>
Value select(Interp& in, const Value& v, CallArgs& a) {
  const size_t name = by_attribute ? 1 : 0;
  std::string test;
  if (a.positional.size() > name) test = in.str(a.positional[name]).bytes();
  const Value attribute = by_attribute ? a.need(0, "attribute", "selectattr") : Value();
  std::vector<Value> out;
  for (const Value& item : elements(in, v)) {
    const Value subject = by_attribute ? attribute_path(in, item, attribute) : item;
    CallArgs rest = rest_of(a, name + 1);
    rest.named = a.named;
    if ((test.empty() ? truth(subject) : in.apply_test(test, subject, rest)) == keep) out.push_back(item);
  }
  a.used = ~uint64_t{0};
  return in.list(std::move(out));
}

}  // namespace

Value attribute_path(Interp& in, Value v, const Value& path) {
  if (path.is_int()) return in.item(v, path);
  if (!path.is(Kind::string)) in.fail(std::string("an attribute must be a str or an integer, not ") + type_name(path));
  for (const MaskedText& part : py_split(path.text(), ".", -1)) {
    const std::string& name = part.bytes();
    const bool number = !name.empty() && name.size() < 18 && name.find_first_not_of("0123456789") == std::string::npos;
    v = in.item(v, number ? Value::integer(std::stoll(name)) : Value::string(part));
  }
  return v;
}

Value folded(Interp& in, const Value& v, bool case_sensitive) {
  if (case_sensitive || !v.is(Kind::string)) return v;
  return in.string(py_lower(v.text()));
}

const BuiltinTable& sequence_filters() {
  static const BuiltinTable table = {{"length", {length, 0}},
                                     {"count", {length, 0}},
                                     {"join", {join, 2}},
                                     {"first", {first, 0}},
                                     {"last", {last, 0}},
                                     {"list", {to_list, 0}},
                                     {"reverse", {reverse, 0}},
                                     {"items", {items, 0}},
                                     {"sort", {sort, 3}},
                                     {"dictsort", {dictsort, 3}},
                                     {"unique", {unique, 2}},
                                     {"min", {extreme<-1>, 2}},
                                     {"max", {extreme<1>, 2}},
                                     {"sum", {sum, 2}},
                                     {"batch", {batch, 2}},
                                     {"slice", {slice, 2}},
                                     {"groupby", {groupby, 3}},
                                     {"map", {map, 64}},
                                     {"select", {select<true, false>, 64}},
                                     {"reject", {select<false, false>, 64}},
                                     {"selectattr", {select<true, true>, 64}},
                                     {"rejectattr", {select<false, true>, 64}}};
  return table;
}

}  // namespace birkhoff::text::chat::jinja
