#include "text/jinja/value.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "text/jinja/python_print.h"

namespace birkhoff::text::chat {
namespace {

template <class Items>
int depth_of(const Items& items) {
  int depth = 0;
  for (const Value& v : items) depth = std::max(depth, v.depth());
  return depth + 1;
}

void check_depth(int depth) {
  if (depth > kMaxDepth)
    throw Error("chat", "values nested deeper than " + std::to_string(kMaxDepth), "flatten the data");
}

constexpr int64_t kMaxWeight = int64_t{1} << 50;

std::shared_ptr<ListObject> make_list(std::vector<Value> items) {
  auto o = std::make_shared<ListObject>();
  o->depth = depth_of(items);
  check_depth(o->depth);
  for (const Value& v : items) o->weight = std::min(o->weight + v.weight(), kMaxWeight);
  o->items = std::move(items);
  return o;
}

template <class T>
int three_way(const T& a, const T& b) {
  return a < b ? -1 : (b < a ? 1 : 0);
}

int compare_numbers(const Value& a, const Value& b) {
  if (a.is_int() && b.is_int()) return three_way(a.as_int(), b.as_int());
  return three_way(a.as_real(), b.as_real());
}

}  // namespace

Value Value::real(double d) {
  Value v(Kind::real, 0, nullptr);
  v.bits_.d = d;
  return v;
}

Value Value::string(MaskedText text) {
  auto o = std::make_shared<StrObject>();
  o->text = std::move(text);
  return Value(Kind::string, 0, std::move(o));
}

Value Value::string(std::string bytes, bool from_content) { return string(MaskedText(std::move(bytes), from_content)); }

Value Value::big(std::string digits) {
  Value v = string(std::move(digits));
  v.kind_ = Kind::big;
  return v;
}

Value Value::undefined(std::string complaint) {
  Value v = string(std::move(complaint));
  v.kind_ = Kind::undefined;
  return v;
}

Value Value::list(std::vector<Value> items) { return Value(Kind::list, 0, make_list(std::move(items))); }
Value Value::tuple(std::vector<Value> items) { return Value(Kind::tuple, 0, make_list(std::move(items))); }

Value Value::dict(std::shared_ptr<DictObject> d) {
  int depth = 0;
  for (const auto& [key, value] : d->entries) depth = std::max({depth, key.depth(), value.depth()});
  d->depth = depth + 1;
  check_depth(d->depth);
  d->weight = 1;
  for (const auto& [key, value] : d->entries)
    d->weight = std::min(d->weight + key.weight() + value.weight(), kMaxWeight);
  return Value(Kind::dict, 0, std::move(d));
}

double Value::as_real() const {
  if (kind_ == Kind::real) return bits_.d;
  if (kind_ == Kind::big) return std::strtod(bytes().c_str(), nullptr);
  return static_cast<double>(bits_.i);
}

const MaskedText& Value::text() const {
  static const MaskedText empty;
  return ref_ && (kind_ == Kind::string || kind_ == Kind::big || kind_ == Kind::undefined)
             ? static_cast<const StrObject*>(ref_.get())->text
             : empty;
}

const std::vector<Value>& Value::items() const {
  BK_CHECK(is_sequence());
  return static_cast<const ListObject*>(ref_.get())->items;
}

const DictObject& Value::as_dict() const {
  BK_CHECK(kind_ == Kind::dict);
  return *static_cast<const DictObject*>(ref_.get());
}

int Value::depth() const { return ref_ ? ref_->depth : 0; }

int64_t Value::weight() const {
  if (kind_ == Kind::string) return 1 + static_cast<int64_t>(text().size() / 8);
  return is_sequence() || kind_ == Kind::dict ? ref_->weight : 1;
}

std::string hash_form(const Value& v) {
  switch (v.kind()) {
    case Kind::undefined:
      return "u";
    case Kind::none:
      return "z";
    case Kind::boolean:
    case Kind::integer:
      return "n" + std::to_string(v.as_int());
    case Kind::big:
      return "n" + v.bytes();
    case Kind::real: {
      const double d = v.as_real();
      if (std::floor(d) == d && std::fabs(d) < 9e18) return "n" + std::to_string(static_cast<int64_t>(d));
      return "f" + float_repr(d);
    }
    case Kind::string:
      return "s" + v.bytes();
    case Kind::tuple: {
      std::string out = "t";
      for (const Value& item : v.items()) {
        const std::string form = hash_form(item);
        out += std::to_string(form.size()) + ":" + form;
      }
      return out;
    }
    case Kind::object:
      return "o" + std::to_string(reinterpret_cast<uintptr_t>(v.ref()));
    default:
      throw Error("chat", std::string("unhashable type: '") + type_name(v) + "'");
  }
}

const Value* DictObject::find(const Value& key) const {
  const auto it = index_.find(hash_form(key));
  return it == index_.end() ? nullptr : &entries[it->second].second;
}

const Value* DictObject::find(std::string_view key) const {
  std::string form = "s";
  form += key;
  const auto it = index_.find(form);
  return it == index_.end() ? nullptr : &entries[it->second].second;
}

void DictObject::set(const Value& key, Value value) {
  const auto [it, fresh] = index_.try_emplace(hash_form(key), entries.size());
  if (fresh)
    entries.emplace_back(key, std::move(value));
  else
    entries[it->second].second = std::move(value);
}

bool truth(const Value& v) {
  switch (v.kind()) {
    case Kind::undefined:
    case Kind::none:
      return false;
    case Kind::boolean:
    case Kind::integer:
      return v.as_int() != 0;
    case Kind::real:
      return v.as_real() != 0;
    case Kind::big:
      return true;
    case Kind::string:
      return !v.text().empty();
    case Kind::list:
    case Kind::tuple:
      return !v.items().empty();
    case Kind::dict:
      return !v.as_dict().entries.empty();
    case Kind::object:
      return true;
  }
  return false;
}

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is(Kind::big) && b.is(Kind::big)) return a.bytes() == b.bytes();
    if (a.is(Kind::big) != b.is(Kind::big) && !a.is(Kind::real) && !b.is(Kind::real)) return false;
    return compare_numbers(a, b) == 0 && !std::isnan(a.as_real()) && !std::isnan(b.as_real());
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::undefined:
    case Kind::none:
      return true;
    case Kind::string:
      return a.bytes() == b.bytes();
    case Kind::list:
    case Kind::tuple: {
      const auto &x = a.items(), &y = b.items();
      if (x.size() != y.size()) return false;
      for (size_t i = 0; i < x.size(); ++i)
        if (!equal(x[i], y[i])) return false;
      return true;
    }
    case Kind::dict: {
      const DictObject &x = a.as_dict(), &y = b.as_dict();
      if (x.entries.size() != y.entries.size()) return false;
      for (const auto& [key, value] : x.entries) {
        const Value* other = y.find(key);
        if (!other || !equal(value, *other)) return false;
      }
      return true;
    }
    default:
      return a.ref() == b.ref();
  }
}

int compare(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return compare_numbers(a, b);
  if (a.is(Kind::string) && b.is(Kind::string)) return a.bytes().compare(b.bytes());
  if (a.is_sequence() && a.kind() == b.kind()) {
    const auto &x = a.items(), &y = b.items();
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i)
      if (!equal(x[i], y[i])) return compare(x[i], y[i]);
    return three_way(x.size(), y.size());
  }
  for (const Value* v : {&a, &b})
    if (v->is(Kind::undefined)) throw Error("chat", v->bytes().empty() ? "value is undefined" : v->bytes());
  throw Error("chat", std::string("'<' is not supported between '") + type_name(a) + "' and '" + type_name(b) + "'");
}

const char* type_name(const Value& v) {
  switch (v.kind()) {
    case Kind::undefined:
      return "Undefined";
    case Kind::none:
      return "NoneType";
    case Kind::boolean:
      return "bool";
    case Kind::integer:
    case Kind::big:
      return "int";
    case Kind::real:
      return "float";
    case Kind::string:
      return "str";
    case Kind::list:
      return "list";
    case Kind::tuple:
      return "tuple";
    case Kind::dict:
      return "dict";
    case Kind::object:
      return "object";
  }
  return "object";
}

Value get(const Value& v, std::string_view key) {
  if (!v.is(Kind::dict)) return {};
  const Value* found = v.as_dict().find(key);
  return found ? *found : Value();
}

}  // namespace birkhoff::text::chat
