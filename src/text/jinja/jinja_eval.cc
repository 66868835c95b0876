// Expressions.
#include <cmath>

#include "core/error.h"
#include "text/jinja/jinja_format.h"
#include "text/jinja/jinja_interp.h"

namespace birkhoff::text::chat::jinja {

Value Interp::eval(const Node& node) {
  const Depth depth(*this);
  charge(1);
  switch (node.kind) {
    case NodeKind::constant:
      return node.value;
    case NodeKind::name:
      return eval_name(node);
    case NodeKind::list:
      return list(eval_kids(node));
    case NodeKind::tuple:
      return tuple(eval_kids(node));
    case NodeKind::dict:
      return eval_dict(node);
    case NodeKind::attribute:
      return attribute(eval(*node.kids[0]), node.name);
    case NodeKind::item: {
      const Value object = eval(*node.kids[0]);
      return item(object, eval(*node.kids[1]));
    }
    case NodeKind::slice:
      return eval_slice(node);
    case NodeKind::call:
      return eval_call(node);
    case NodeKind::filter:
      return eval_filter(node);
    case NodeKind::test: {
      const Value operand = eval(*node.kids[0]);
      CallArgs args = eval_args(node.args);
      return Value::boolean(apply_test(node.name, operand, args));
    }
    case NodeKind::negative:
      return arithmetic("-", Value::integer(0), defined(eval(*node.kids[0])));
    case NodeKind::positive:
      return arithmetic("+", Value::integer(0), defined(eval(*node.kids[0])));
    case NodeKind::logical_not:
      return Value::boolean(!holds(eval(*node.kids[0])));
    case NodeKind::binary: {
      const Value left = eval(*node.kids[0]);
      return arithmetic(node.name, left, eval(*node.kids[1]));
    }
    case NodeKind::compare:
      return eval_compare(node);
    case NodeKind::logical_and:
    case NodeKind::logical_or: {
      Value left = eval(*node.kids[0]);
      return holds(left) == (node.kind == NodeKind::logical_or) ? left : eval(*node.kids[1]);
    }
    case NodeKind::concat:
      return eval_concat(node);
    case NodeKind::conditional:
      if (holds(eval(*node.kids[0]))) return eval(*node.kids[1]);
      return node.kids[2] ? eval(*node.kids[2]) : Value::undefined("the inline if has no else");
    default:
      fail("a statement where an expression was expected");
  }
}

Value Interp::eval_name(const Node& node) {
  for (Scope* s = scope_.get(); s; s = s->parent.get())
    if (const Value* v = s->find(node.id)) return *v;
  if (has_global_[static_cast<size_t>(node.id)]) return globals_[static_cast<size_t>(node.id)];
  if (const BuiltinEntry* global = find_global(node.name)) {
    auto function = std::make_shared<BuiltinObject>();
    function->function = global->function;
    function->max_args = global->max_args;
    function->name = node.name;
    return Value::object(std::move(function));
  }
  return Value::undefined("'" + node.name + "' is undefined");
}

std::vector<Value> Interp::eval_kids(const Node& node) {
  std::vector<Value> out;
  out.reserve(node.kids.size());
  for (const NodePtr& kid : node.kids) out.push_back(eval(*kid));
  return out;
}

Value Interp::eval_dict(const Node& node) {
  auto dict = std::make_shared<DictObject>();
  for (size_t i = 0; i + 1 < node.kids.size(); i += 2) {
    const Value key = eval(*node.kids[i]);
    charge_value(key);
    dict->set(key, eval(*node.kids[i + 1]));
  }
  return container(Value::dict(std::move(dict)));
}

CallArgs Interp::eval_args(const Args& args) {
  CallArgs out;
  for (const NodePtr& arg : args.positional) out.positional.push_back(eval(*arg));
  for (const auto& [name, arg] : args.named) out.named.emplace_back(name, eval(*arg));
  if (args.star)
    for (Value& v : iterate(eval(*args.star))) out.positional.push_back(std::move(v));
  if (args.star_star) {
    const Value extra = eval(*args.star_star);
    if (!extra.is(Kind::dict)) fail(std::string("argument after ** must be a mapping, not ") + type_name(extra));
    for (const auto& [key, value] : extra.as_dict().entries) {
      if (!key.is(Kind::string)) fail("keywords must be strings");
      out.named.emplace_back(key.bytes(), value);
    }
  }
  return out;
}

Value Interp::eval_call(const Node& node) {
  const Node& callee = *node.kids[0];
  // object.method(...) without making a bound method on the way.
  if (callee.kind == NodeKind::attribute) {
    const Value object = eval(*callee.kids[0]);
    if (const BuiltinEntry* method = find_method(object, callee.name)) {
      CallArgs args = eval_args(node.args);
      charge_bytes(object.is(Kind::string) ? object.bytes().size() : 0);
      Value result = method->function(*this, object, args);
      args.done(method->max_args, callee.name);
      return result;
    }
    const Value function = attribute(object, callee.name);
    CallArgs args = eval_args(node.args);
    return call(function, args);
  }
  const Value function = eval(callee);
  CallArgs args = eval_args(node.args);
  return call(function, args);
}

Value Interp::eval_filter(const Node& node) {
  const Value operand = node.kids[0] ? eval(*node.kids[0]) : *filter_block_operand_;
  CallArgs args = eval_args(node.args);
  return apply_filter(node.name, operand, args);
}

Value Interp::eval_compare(const Node& node) {
  Value left = eval(*node.kids[0]);
  for (size_t k = 0; k < node.names.size(); ++k) {
    Value right = eval(*node.kids[k + 1]);
    if (!compare_once(node.names[k], left, right)) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

bool Interp::compare_once(const std::string& op, const Value& a, const Value& b) {
  if (a.kind() == b.kind()) charge(std::min(a.weight(), b.weight()));
  if (op == "==" || op == "!=") {
    usable(a);
    usable(b);
  }
  if (op == "==") return equal(a, b);
  if (op == "!=") return !equal(a, b);
  if (op == "in") return contains(b, a);
  if (op == "not in") return !contains(b, a);
  defined(a);
  defined(b);
  if ((a.is(Kind::real) && std::isnan(a.as_real())) || (b.is(Kind::real) && std::isnan(b.as_real()))) return false;
  const int order = compare(a, b);
  return op == "<" ? order < 0 : op == "<=" ? order <= 0 : op == ">" ? order > 0 : order >= 0;
}

Value Interp::eval_concat(const Node& node) {
  MaskedText out;
  for (const NodePtr& kid : node.kids) {
    out.append(str(eval(*kid)));
    if (static_cast<int64_t>(out.size()) > limits_.output_bytes) break;
  }
  return string(std::move(out));
}

Value Interp::repeat(const Value& sequence, const Value& count) {
  const int64_t n = std::max<int64_t>(count.as_int(), 0);
  const auto size = static_cast<int64_t>(sequence.is(Kind::string) ? sequence.bytes().size() : sequence.items().size());
  if (size > 0 && n > limits_.output_bytes / size)
    fail("a repetition of " + std::to_string(n) + " times " + std::to_string(size) + " is too large");
  charge(sequence.is(Kind::string) ? n * size / 64 : n * size);
  if (sequence.is(Kind::string)) {
    MaskedText out;
    for (int64_t k = 0; size > 0 && k < n; ++k) out.append(sequence.text());
    return string(std::move(out));
  }
  std::vector<Value> out;
  for (int64_t k = 0; size > 0 && k < n; ++k) out.insert(out.end(), sequence.items().begin(), sequence.items().end());
  return sequence.is(Kind::list) ? list(std::move(out)) : tuple(std::move(out));
}

Value Interp::add(const Value& a, const Value& b) {
  if (a.is(Kind::string) && b.is(Kind::string)) {
    MaskedText out = a.text();
    out.append(b.text());
    return string(std::move(out));
  }
  if (a.is_sequence() && a.kind() == b.kind()) {
    std::vector<Value> out = a.items();
    out.insert(out.end(), b.items().begin(), b.items().end());
    return a.is(Kind::list) ? list(std::move(out)) : tuple(std::move(out));
  }
  if (a.is(Kind::string))
    fail(std::string("can only concatenate str (not \"") + type_name(b) + "\") to str",
         "use ~ to join values of different types");
  fail(std::string("unsupported operand types for +: '") + type_name(a) + "' and '" + type_name(b) + "'");
}

Value Interp::integer_arithmetic(char op, int64_t a, int64_t b) {
  int64_t out = 0;
  bool overflow = false;
  switch (op) {
    case '+':
      overflow = __builtin_add_overflow(a, b, &out);
      break;
    case '-':
      overflow = __builtin_sub_overflow(a, b, &out);
      break;
    case '*':
      overflow = __builtin_mul_overflow(a, b, &out);
      break;
    default:  // '/' floors, '%' has the sign of b
      if (b == 0) fail("integer division or modulo by zero");
      if (b == -1) return op == '%' ? Value::integer(0) : integer_arithmetic('-', 0, a);
      out = op == '%' ? a % b : a / b;
      if (a % b != 0 && (a % b < 0) != (b < 0)) out += op == '%' ? b : -1;
  }
  if (overflow) fail("integer overflow: results are limited to 64 bits");
  return Value::integer(out);
}

Value Interp::arithmetic(const std::string& op, const Value& a, const Value& b) {
  defined(a);
  if (op == "%" && a.is(Kind::string)) return string(percent_format(*this, a.text(), b));
  defined(b);
  if (op == "*" && b.is_int() && (a.is_sequence() || a.is(Kind::string))) return repeat(a, b);
  if (op == "*" && a.is_int() && (b.is_sequence() || b.is(Kind::string))) return repeat(b, a);
  if (!a.is_number() || !b.is_number()) {
    if (op == "+") return add(a, b);
    fail("unsupported operand types for " + op + ": '" + type_name(a) + "' and '" + type_name(b) + "'");
  }
  if (a.is(Kind::big) || b.is(Kind::big)) fail("integers beyond 64 bits can be printed, not computed with");
  const bool whole = a.is_int() && b.is_int();
  if (whole && op != "/" && op != "**") return integer_arithmetic(op == "//" ? '/' : op[0], a.as_int(), b.as_int());
  const double x = a.as_real(), y = b.as_real();
  if (op == "+") return Value::real(x + y);
  // 0 - x would lose the sign of a negated zero.
  if (op == "-") return Value::real(a.is_int() && a.as_int() == 0 ? -y : x - y);
  if (op == "*") return Value::real(x * y);
  if (op == "**") {
    if (x < 0 && y != std::floor(y)) fail("a power that is a complex number");
    if (x == 0 && y < 0) fail("0.0 cannot be raised to a negative power");
    if (!whole || b.as_int() < 0) return Value::real(std::pow(x, y));
    Value power = Value::integer(1);
    for (int64_t k = 0; k < b.as_int() && !(std::abs(a.as_int()) <= 1 && k > 2 + (b.as_int() & 1)); ++k)
      power = integer_arithmetic('*', power.as_int(), a.as_int());
    return power;
  }
  if (y == 0) fail("division by zero");
  if (op == "/") return Value::real(x / y);
  if (op == "//") return Value::real(std::floor(x / y));
  const double rest = std::fmod(x, y);
  return Value::real(rest != 0 && (rest < 0) != (y < 0) ? rest + y : rest);
}

}  // namespace birkhoff::text::chat::jinja
