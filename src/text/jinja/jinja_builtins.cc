// Tests (`is ...`) and global functions.
#include <cmath>

#include "core/error.h"
#include "text/jinja/characters.h"
#include "text/jinja/jinja_filters.h"
#include "text/jinja/python_text.h"

namespace birkhoff::text::chat::jinja {
namespace {

Value yes(bool b) { return Value::boolean(b); }

template <Kind kind>
Value is_kind(Interp&, const Value& v, CallArgs&) {
  return yes(v.is(kind));
}

Value is_defined(Interp&, const Value& v, CallArgs&) { return yes(!v.is(Kind::undefined)); }
Value is_integer(Interp&, const Value& v, CallArgs&) { return yes(v.is(Kind::integer) || v.is(Kind::big)); }
Value is_number(Interp&, const Value& v, CallArgs&) { return yes(v.is_number()); }
Value is_sequence(Interp&, const Value& v, CallArgs&) {
  return yes(v.is_sequence() || v.is(Kind::string) || v.is(Kind::dict) || v.is(Kind::undefined));
}
Value is_callable(Interp&, const Value& v, CallArgs&) {
  return yes(v.is(Kind::undefined) || v.as_object<Callable>() != nullptr);
}  // Undefined can be called, to fail
template <bool expected>
Value is_bool(Interp&, const Value& v, CallArgs&) {
  return yes(v.is(Kind::boolean) && (v.as_int() != 0) == expected);
}

template <int rest>
Value is_parity(Interp& in, const Value& v, CallArgs&) {
  return yes(equal(in.arithmetic("%", v, Value::integer(2)), Value::integer(rest)));
}

Value is_divisible(Interp& in, const Value& v, CallArgs& a) {
  return yes(equal(in.arithmetic("%", v, a.need(0, "num", "divisibleby")), Value::integer(0)));
}

enum class Order { eq, ne, lt, le, gt, ge };
template <Order order>
Value is_ordered(Interp& in, const Value& v, CallArgs& a) {
  const Value other = a.need(0, "other", "test");
  in.charge(std::min(v.weight(), other.weight()));
  if (order == Order::eq) return yes(equal(v, other));
  if (order == Order::ne) return yes(!equal(v, other));
  for (const Value* x : {&v, &other})
    if (x->is(Kind::undefined)) in.fail(x->bytes().empty() ? "a value is undefined" : x->bytes());
  const int c = compare(v, other);
  return yes(order == Order::lt ? c < 0 : order == Order::le ? c <= 0 : order == Order::gt ? c > 0 : c >= 0);
}

Value is_in(Interp& in, const Value& v, CallArgs& a) { return yes(in.contains(a.need(0, "seq", "in"), v)); }

Value is_same(Interp&, const Value& v, CallArgs& a) {
  const Value other = a.need(0, "other", "sameas");
  return yes(
      v.kind() == other.kind() &&
      (v.ref() ? v.ref() == other.ref() || (v.is(Kind::string) && v.bytes() == other.bytes()) : equal(v, other)));
}

template <bool upper>
Value is_case(Interp& in, const Value& v, CallArgs& a) {
  const Value s = in.string(in.str(v));
  return find_method(s, upper ? "isupper" : "islower")->function(in, s, a);
}

Value is_filter(Interp& in, const Value& v, CallArgs&) { return yes(find_filter(in.str(v).bytes()) != nullptr); }
Value is_test(Interp& in, const Value& v, CallArgs&) { return yes(find_test(in.str(v).bytes()) != nullptr); }

Value is_iterable(Interp&, const Value& v, CallArgs&) {
  return yes(v.is_sequence() || v.is(Kind::string) || v.is(Kind::dict) || v.is(Kind::undefined));
}
Value never(Interp&, const Value&, CallArgs&) { return yes(false); }

// Globals: self is undefined.

Value range(Interp& in, const Value&, CallArgs& a) {
  const auto bound = [&](size_t k) {
    const Value v = a.positional[k];
    if (!v.is_int()) in.fail(std::string("range: '") + type_name(v) + "' object cannot be interpreted as an integer");
    return v.as_int();
  };
  const size_t n = a.positional.size();
  if (n < 1 || n > 3) in.fail("range takes one to three arguments, " + std::to_string(n) + " were given");
  const int64_t start = n > 1 ? bound(0) : 0, stop = n > 1 ? bound(1) : bound(0), step = n > 2 ? bound(2) : 1;
  if (step == 0) in.fail("range: the step must not be zero");
  const double count = std::ceil((static_cast<double>(stop) - static_cast<double>(start)) / static_cast<double>(step));
  if (count > static_cast<double>(in.limits().range))
    in.fail("a range of " + std::to_string(static_cast<int64_t>(std::min(count, 9e18))) + " elements, at most " +
            std::to_string(in.limits().range) + " are allowed");
  std::vector<Value> out;
  in.charge(static_cast<int64_t>(std::max(count, 0.0)));
  for (int64_t k = 0; k < static_cast<int64_t>(count); ++k) out.push_back(Value::integer(start + k * step));
  return in.list(std::move(out));
}

Value make_namespace(Interp& in, const Value&, CallArgs& a) { return in.make_namespace(a); }

Value make_dict(Interp& in, const Value&, CallArgs& a) {
  auto dict = std::make_shared<DictObject>();
  if (!a.positional.empty()) {
    const Value& from = a.positional[0];
    if (from.is(Kind::dict)) {
      for (const auto& [key, value] : from.as_dict().entries) dict->set(key, value);
    } else {
      for (const Value& pair : in.iterate(from)) {
        const auto parts = in.iterate(pair);
        if (parts.size() != 2) in.fail("dict: pairs of key and value were expected");
        dict->set(parts[0], parts[1]);
      }
    }
  }
  for (const auto& [name, value] : a.named) dict->set(name, value);
  a.used = ~uint64_t{0};
  return in.container(Value::dict(std::move(dict)));
}

Value make_cycler(Interp& in, const Value&, CallArgs& a) {
  if (a.positional.empty()) in.fail("cycler: at least one item has to be provided");
  auto cycler = std::make_shared<CyclerObject>();
  cycler->items = a.positional;
  for (const Value& v : a.positional) cycler->depth = std::max(cycler->depth, v.depth() + 1);
  if (cycler->depth > kMaxDepth) in.fail("values nested deeper than " + std::to_string(kMaxDepth));
  return Value::object(std::move(cycler));
}

struct JoinerObject : Callable {
  Value separator;
  bool used = false;
  Value call(Interp& interp, CallArgs& args) override {
    args.done(0, "joiner");
    return std::exchange(used, true) ? separator : interp.string("");
  }
};

Value make_joiner(Interp&, const Value&, CallArgs& a) {
  auto joiner = std::make_shared<JoinerObject>();
  joiner->separator = a.get(0, "sep", Value::string(", "));
  return Value::object(std::move(joiner));
}

Value raise_exception(Interp& in, const Value&, CallArgs& a) {
  throw Error("chat template", in.str(a.need(0, "message", "raise_exception")).bytes(),
              "the template refuses this conversation");
}

Value strftime_now(Interp& in, const Value&, CallArgs& a) {
  const std::string format = in.str(a.need(0, "format", "strftime_now")).bytes();
  if (format.empty()) return in.string("");
  if (format.size() > 256) in.fail("strftime_now: a format of more than 256 bytes");
  const std::time_t now = in.now();
  std::tm local{};
  localtime_r(&now, &local);
  std::string out(format.size() * 32 + 64, '\0');
  out.resize(std::strftime(out.data(), out.size(), format.c_str(), &local));
  return in.string(std::move(out));
}

const BuiltinTable& tests() {
  static const BuiltinTable table = {{"defined", {is_defined, 0}},
                                     {"undefined", {is_kind<Kind::undefined>, 0}},
                                     {"none", {is_kind<Kind::none>, 0}},
                                     {"boolean", {is_kind<Kind::boolean>, 0}},
                                     {"string", {is_kind<Kind::string>, 0}},
                                     {"mapping", {is_kind<Kind::dict>, 0}},
                                     {"float", {is_kind<Kind::real>, 0}},
                                     {"integer", {is_integer, 0}},
                                     {"number", {is_number, 0}},
                                     {"sequence", {is_sequence, 0}},
                                     {"iterable", {is_iterable, 0}},
                                     {"callable", {is_callable, 0}},
                                     {"true", {is_bool<true>, 0}},
                                     {"false", {is_bool<false>, 0}},
                                     {"odd", {is_parity<1>, 0}},
                                     {"even", {is_parity<0>, 0}},
                                     {"divisibleby", {is_divisible, 1}},
                                     {"eq", {is_ordered<Order::eq>, 1}},
                                     {"equalto", {is_ordered<Order::eq>, 1}},
                                     {"==", {is_ordered<Order::eq>, 1}},
                                     {"ne", {is_ordered<Order::ne>, 1}},
                                     {"!=", {is_ordered<Order::ne>, 1}},
                                     {"lt", {is_ordered<Order::lt>, 1}},
                                     {"lessthan", {is_ordered<Order::lt>, 1}},
                                     {"<", {is_ordered<Order::lt>, 1}},
                                     {"le", {is_ordered<Order::le>, 1}},
                                     {"<=", {is_ordered<Order::le>, 1}},
                                     {"gt", {is_ordered<Order::gt>, 1}},
                                     {"greaterthan", {is_ordered<Order::gt>, 1}},
                                     {">", {is_ordered<Order::gt>, 1}},
                                     {"ge", {is_ordered<Order::ge>, 1}},
                                     {">=", {is_ordered<Order::ge>, 1}},
                                     {"in", {is_in, 1}},
                                     {"sameas", {is_same, 1}},
                                     {"upper", {is_case<true>, 0}},
                                     {"lower", {is_case<false>, 0}},
                                     {"filter", {is_filter, 0}},
                                     {"test", {is_test, 0}},
                                     {"escaped", {never, 0}}};
  return table;
}

const BuiltinTable& globals() {
  static const BuiltinTable table = {{"range", {range, 3}},
                                     {"namespace", {make_namespace, 1}},
                                     {"dict", {make_dict, 1}},
                                     {"cycler", {make_cycler, 64}},
                                     {"joiner", {make_joiner, 1}},
                                     {"raise_exception", {raise_exception, 1}},
                                     {"strftime_now", {strftime_now, 1}}};
  return table;
}

}  // namespace

const BuiltinEntry* find_test(std::string_view name) { return look_up(tests(), name); }
const BuiltinEntry* find_global(std::string_view name) { return look_up(globals(), name); }

}  // namespace birkhoff::text::chat::jinja
