// Values as Python has them: what JSON lines hold and what templates compute with. Strings carry marks (masked_text.h);
// dicts keep insertion order; integers beyond 64 bits are kept as their digits, to be printed and compared but not
// computed with. Immutable but for DictObject under construction and namespaces, so that containers never hold
// themselves; depth is bounded, so that destroying a value cannot overflow the stack.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/jinja/masked_text.h"

namespace birkhoff::text::chat {

enum class Kind : uint8_t { undefined, none, boolean, integer, real, big, string, list, tuple, dict, object };

struct Object {
  Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object() {
    if (live) *live -= charged;
  }
  int depth = 0;       // of containers: 1 + the deepest element
  int64_t weight = 1;  // of containers: the sum over what they hold, shared parts counted as often as they are held
  int64_t* live = nullptr;  // the byte counter of a budget that this object was charged to
  int64_t charged = 0;
};

struct StrObject;
struct ListObject;
struct DictObject;

class Value {
 public:
  Value() = default;  // undefined, nameless
  static Value none() { return Value(Kind::none, 0, nullptr); }
  static Value boolean(bool b) { return Value(Kind::boolean, b, nullptr); }
  static Value integer(int64_t i) { return Value(Kind::integer, i, nullptr); }
  static Value real(double d);
  static Value big(std::string digits);  // "-?[0-9]+" beyond 64 bits
  static Value string(std::string bytes, bool from_content = false);
  static Value string(MaskedText text);
  static Value undefined(std::string complaint);  // what to say when it is used
  // Throw Error when deeper than kMaxDepth.
  static Value list(std::vector<Value> items);
  static Value tuple(std::vector<Value> items);
  static Value dict(std::shared_ptr<DictObject> d);
  static Value object(std::shared_ptr<Object> o) { return Value(Kind::object, 0, std::move(o)); }
  static Value object_of(Kind kind, std::shared_ptr<Object> o) { return Value(kind, 0, std::move(o)); }

  Kind kind() const { return kind_; }
  bool is(Kind k) const { return kind_ == k; }
  bool is_sequence() const { return kind_ == Kind::list || kind_ == Kind::tuple; }
  bool is_int() const { return kind_ == Kind::integer || kind_ == Kind::boolean; }
  bool is_number() const { return is_int() || kind_ == Kind::real || kind_ == Kind::big; }
  int64_t as_int() const { return bits_.i; }  // integer, boolean
  double as_real() const;                     // any number
  const MaskedText& text() const;             // string, and the digits of big, the complaint of undefined
  const std::string& bytes() const { return text().bytes(); }
  const std::vector<Value>& items() const;  // list, tuple
  const DictObject& as_dict() const;
  template <class T>
  T* as_object() const {
    return kind_ == Kind::object ? dynamic_cast<T*>(ref_.get()) : nullptr;
  }
  const Object* ref() const { return ref_.get(); }
  Object* mutable_ref() const { return ref_.get(); }
  int depth() const;
  // What walking through the value costs: 1, 1 + bytes / 8 for text, the sum for containers. A small value may weigh a
  // lot, since parts are shared; whoever prints or compares checks.
  int64_t weight() const;

 private:
  Value(Kind k, int64_t i, std::shared_ptr<Object> r) : kind_(k), ref_(std::move(r)) { bits_.i = i; }
  Kind kind_ = Kind::undefined;
  union {
    int64_t i;
    double d;
  } bits_{0};
  std::shared_ptr<Object> ref_;
};

inline constexpr int kMaxDepth = 200;

struct StrObject : Object {
  MaskedText text;
};

struct ListObject : Object {
  std::vector<Value> items;
};

struct DictObject : Object {
  std::vector<std::pair<Value, Value>> entries;
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  // Inserts or replaces; a replaced key keeps its place. Throws Error when the key cannot be hashed.
  void set(const Value& key, Value value);
  void set(std::string_view key, Value value) { set(Value::string(std::string(key)), std::move(value)); }

 private:
  std::unordered_map<std::string, size_t> index_;
};

bool truth(const Value& v);
bool equal(const Value& a, const Value& b);  // Python's ==
// <0, 0, >0. Throws Error when Python would raise TypeError.
int compare(const Value& a, const Value& b);
const char* type_name(const Value& v);  // Python's: 'str', 'dict', ...
// A hashable canonical form: equal values have equal forms. Throws Error for unhashable types.
std::string hash_form(const Value& v);
// get of a dict by text key: undefined when v is no dict or has no such key.
Value get(const Value& v, std::string_view key);

}  // namespace birkhoff::text::chat
