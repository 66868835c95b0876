// Attributes, subscripts, slices and membership.
#include <algorithm>

#include "core/error.h"
#include "text/jinja/characters.h"
#include "text/jinja/jinja_interp.h"

namespace birkhoff::text::chat::jinja {
namespace {

Value missing(const Value& object, const std::string& name) {
  const std::string what = object.is(Kind::none) ? "None" : std::string("'") + type_name(object) + " object'";
  return Value::undefined(what + " has no attribute '" + name.substr(0, 80) + "'");
}

// Attributes of the objects that templates are given.
const Value* object_attribute(Interp& interp, const Value& object, const std::string& name, Value& storage) {
  if (const auto ns = object.as_object<NamespaceObject>()) return ns->attributes.find(std::string_view(name));
  if (const auto loop = object.as_object<LoopObject>()) {
    const auto count = static_cast<int64_t>(loop->items.size()), index0 = static_cast<int64_t>(loop->index0);
    const auto number = [&](int64_t n) { return &(storage = Value::integer(n)); };
    if (name == "index") return number(index0 + 1);
    if (name == "index0") return number(index0);
    if (name == "revindex") return number(count - index0);
    if (name == "revindex0") return number(count - index0 - 1);
    if (name == "length") return number(count);
    if (name == "depth") return number(loop->depth0 + 1);
    if (name == "depth0") return number(loop->depth0);
    if (name == "first") return &(storage = Value::boolean(index0 == 0));
    if (name == "last") return &(storage = Value::boolean(index0 + 1 == count));
    if (name == "previtem")
      return &(storage = index0 > 0 ? loop->items[loop->index0 - 1] : Value::undefined("there is no previous item"));
    if (name == "nextitem")
      return &(storage =
                   index0 + 1 < count ? loop->items[loop->index0 + 1] : Value::undefined("there is no next item"));
  }
  if (const auto cycler = object.as_object<CyclerObject>(); cycler && name == "current")
    return &(storage = cycler->items[cycler->position]);
  if (const auto macro = object.as_object<MacroObject>(); macro && name == "name")
    return &(storage = interp.string(macro->node->name));
  return nullptr;
}

int64_t index_of(int64_t index, size_t size) { return index < 0 ? index + static_cast<int64_t>(size) : index; }

}  // namespace

Value Interp::attribute(const Value& object, const std::string& name) {
  defined(object);
  if (const BuiltinEntry* method = find_method(object, name)) {
    auto bound = std::make_shared<BuiltinObject>();
    bound->function = method->function;
    bound->max_args = method->max_args;
    bound->self = object;
    bound->name = name;
    return Value::object(std::move(bound));
  }
  if (object.is(Kind::dict))
    if (const Value* v = object.as_dict().find(std::string_view(name))) return *v;
  if (is_refused(object, name))
    fail("access to '" + name.substr(0, 80) + "' of a " + type_name(object) + " is refused",
         "templates may read their input, not change it or look inside");
  Value storage;
  if (const Value* v = object_attribute(*this, object, name, storage)) return *v;
  return missing(object, name);
}

Value Interp::item(const Value& object, const Value& key) {
  defined(object);
  if (object.is(Kind::dict)) {
    charge_value(key);
    if (const Value* v = object.as_dict().find(key)) return *v;
  } else if ((object.is_sequence() || object.is(Kind::string)) && key.is_int()) {
    if (object.is_sequence()) {
      const auto& items = object.items();
      const int64_t i = index_of(key.as_int(), items.size());
      if (i >= 0 && i < static_cast<int64_t>(items.size())) return items[static_cast<size_t>(i)];
    } else {
      const std::string& s = object.bytes();
      charge_bytes(s.size());
      const int64_t i = index_of(key.as_int(), utf8_count(s));
      size_t at = 0;
      for (int64_t k = 0; k < i && at < s.size(); ++k) utf8_next(s, at);
      if (i >= 0 && at < s.size()) {
        size_t end = at;
        utf8_next(s, end);
        return string(object.text().sub(at, end));
      }
    }
    return Value::undefined(std::string(type_name(object)) + " object has no element " + std::to_string(key.as_int()));
  }
  if (key.is(Kind::string)) return attribute(object, key.bytes());
  return Value::undefined(std::string(type_name(object)) + " object has no element of that key");
}

// Python's slices: bounds are clipped, a negative step walks back.
Value Interp::eval_slice(const Node& node) {
  const Value object = eval(*node.kids[0]);
  const auto bound = [&](size_t k, Value& v) {
    v = node.kids[k] ? eval(*node.kids[k]) : Value::none();
    if (!v.is(Kind::none) && !v.is_int())
      fail("slice indices must be integers or None, not " + std::string(type_name(v)));
    return !v.is(Kind::none);
  };
  Value start, stop, step;
  const bool has_start = bound(1, start), has_stop = bound(2, stop), has_step = bound(3, step);
  defined(object);
  if (!object.is_sequence() && !object.is(Kind::string))
    fail(std::string("'") + type_name(object) + "' object cannot be sliced");
  std::vector<size_t> offsets;  // of code points
  if (object.is(Kind::string)) {
    const std::string& s = object.bytes();
    charge_bytes(8 * s.size());
    for (size_t i = 0; i < s.size(); utf8_next(s, i)) offsets.push_back(i);
    offsets.push_back(s.size());
  }
  const auto n = static_cast<int64_t>(object.is(Kind::string) ? offsets.size() - 1 : object.items().size());
  const int64_t by = has_step ? step.as_int() : 1;
  if (by == 0) fail("slice step cannot be zero");
  const auto clip = [&](int64_t i) {
    return std::clamp(i < 0 ? i + n : i, by > 0 ? int64_t{0} : int64_t{-1}, by > 0 ? n : n - 1);
  };
  const int64_t from = has_start ? clip(start.as_int()) : (by > 0 ? 0 : n - 1);
  const int64_t to = has_stop ? clip(stop.as_int()) : (by > 0 ? n : -1);
  if (object.is(Kind::string)) {
    if (by == 1)
      return string(from < to ? object.text().sub(offsets[static_cast<size_t>(from)], offsets[static_cast<size_t>(to)])
                              : MaskedText());
    MaskedText out;
    for (int64_t i = from; by > 0 ? i < to : i > to; i += by) {
      out.append(object.text(), offsets[static_cast<size_t>(i)], offsets[static_cast<size_t>(i) + 1]);
      if (std::abs(by) > n) break;
    }
    return string(std::move(out));
  }
  std::vector<Value> out;
  for (int64_t i = from; by > 0 ? i < to : i > to; i += by) {
    out.push_back(object.items()[static_cast<size_t>(i)]);
    if (std::abs(by) > n) break;
  }
  return object.is(Kind::list) ? list(std::move(out)) : tuple(std::move(out));
}

bool Interp::contains(const Value& container, const Value& element) {
  usable(container);
  usable(element);
  switch (container.kind()) {
    case Kind::undefined:
      return false;
    case Kind::string:
      if (!element.is(Kind::string)) {
        defined(element);
        fail(std::string("'in <string>' requires string as left operand, not ") + type_name(element));
      }
      charge_search(container.bytes().size(), element.bytes().size());
      return container.bytes().find(element.bytes()) != std::string::npos;
    case Kind::list:
    case Kind::tuple:
      charge(static_cast<int64_t>(container.items().size()) +
             std::min(container.weight(), element.weight() * static_cast<int64_t>(container.items().size())));
      for (const Value& v : container.items())
        if (equal(v, element)) return true;
      return false;
    case Kind::dict:
      charge_value(element);
      return container.as_dict().find(element) != nullptr;
    default:
      fail(std::string("argument of type '") + type_name(container) + "' is not iterable");
  }
}

}  // namespace birkhoff::text::chat::jinja
