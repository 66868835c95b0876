#include "text/jinja/jinja_interp.h"

#include "core/error.h"
#include "text/jinja/characters.h"
#include "text/jinja/jinja_filters.h"
#include "text/jinja/jinja_token.h"
#include "text/jinja/python_print.h"

namespace birkhoff::text::chat::jinja {

Template::Template(std::string_view source, Dialect dialect) : tree_(std::make_unique<Tree>(parse(source, dialect))) {}
Template::~Template() = default;
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;

MaskedText Template::render(const DictObject& context, const Limits& limits, std::time_t now) const {
  return Interp(*tree_, context, limits, now).run();
}

Expression::Expression(std::string_view source, Dialect dialect)
    : tree_(std::make_unique<Tree>(parse("{{ " + std::string(source) + " }}", dialect))) {
  const Body& body = tree_->body;
  if (body.size() != 1 || body[0]->kind != NodeKind::print || body[0]->kids.size() != 1)
    template_error(1, "one expression was expected", "what would stand between {{ and }}, without these");
}
Expression::~Expression() = default;
Expression::Expression(Expression&&) noexcept = default;
Expression& Expression::operator=(Expression&&) noexcept = default;

Value Expression::evaluate(const DictObject& context, const Limits& limits, std::time_t now) const {
  return Interp(*tree_, context, limits, now).value();
}

Interp::Interp(const Tree& tree, const DictObject& context, const Limits& limits, std::time_t now)
    : tree_(tree), limits_(limits), now_(now), globals_(tree.names.size()), has_global_(tree.names.size(), 0) {
  for (size_t id = 0; id < tree.names.size(); ++id) {
    if (const Value* v = context.find(tree.names[id])) {
      globals_[id] = *v;
      has_global_[id] = 1;
    }
    for (const auto& [name, slot] : {std::pair{"loop", &ids_.loop},
                                     {"varargs", &ids_.varargs},
                                     {"kwargs", &ids_.kwargs},
                                     {"caller", &ids_.caller}})
      if (tree.names[id] == name) *slot = static_cast<int>(id);
  }
}

// Everything that can be part of a cycle is emptied, flat, while all of it is still alive.
Interp::~Interp() {
  std::vector<Value> garbage;
  for (const auto& ns : namespaces_)
    for (auto& [key, value] : ns->attributes.entries) garbage.push_back(std::exchange(value, Value()));
  for (const ScopePtr& scope : closures_) {
    for (auto& [id, value] : scope->variables) garbage.push_back(std::exchange(value, Value()));
    scope->parent.reset();
  }
}

MaskedText Interp::run() {
  MaskedText out;
  out_ = &out;
  exec(tree_.body);
  return out;
}

Value Interp::value() {
  line_ = 1;
  Value v = defined(eval(*tree_.body[0]->kids[0]));
  release(v);
  return v;
}

// What outlives its interpreter leaves the interpreter's budget.
void Interp::release(const Value& v) const {
  if (v.is(Kind::object) || v.is(Kind::undefined)) fail("a value that is no data");
  Object* o = v.mutable_ref();
  if (o && o->live == &live_) o->live = nullptr;
  if (v.is_sequence())
    for (const Value& item : v.items()) release(item);
  if (v.is(Kind::dict))
    for (const auto& [key, value] : v.as_dict().entries) {
      release(key);
      release(value);
    }
}

bool Interp::holds(const Value& v) const { return truth(usable(v)); }

const Value& Interp::usable(const Value& v) const { return strict() ? defined(v) : v; }

void Interp::fail(const std::string& what, const std::string& hint) const { template_error(line_, what, hint); }

void Interp::charge(int64_t steps) {
  steps_ += steps;
  if (steps_ > limits_.steps)
    fail("more than " + std::to_string(limits_.steps) + " steps",
         "the template does more work than a chat template may");
}

void Interp::check_size(size_t bytes) const {
  if (static_cast<int64_t>(bytes) > limits_.output_bytes)
    fail("a string of " + std::to_string(bytes) + " bytes, at most " + std::to_string(limits_.output_bytes) +
         " are allowed");
}

Value Interp::string(MaskedText text) {
  check_size(text.size());
  charge_bytes(text.held());
  Value v = Value::string(std::move(text));
  Object* o = v.mutable_ref();
  o->live = &live_;
  o->charged = static_cast<int64_t>(v.text().held() + sizeof(StrObject));
  live_ += o->charged;
  if (live_ > limits_.live_bytes) fail("more than " + std::to_string(limits_.live_bytes) + " bytes of values");
  return v;
}

Value Interp::container(Value v) {
  if (v.weight() > limits_.output_bytes) fail("a value that holds too much");
  const size_t n = v.is(Kind::dict) ? 3 * v.as_dict().entries.size() : v.items().size();
  charge(static_cast<int64_t>(n) + 1);
  Object* o = v.mutable_ref();
  o->live = &live_;
  o->charged = static_cast<int64_t>(n * sizeof(Value) + sizeof(DictObject));
  live_ += o->charged;
  if (live_ > limits_.live_bytes) fail("more than " + std::to_string(limits_.live_bytes) + " bytes of values");
  return v;
}

const Value& Interp::defined(const Value& v) const {
  if (v.is(Kind::undefined)) fail(v.bytes().empty() ? "a value is undefined" : v.bytes());
  return v;
}

MaskedText Interp::str(const Value& v) {
  if (v.as_object<MacroObject>()) return MaskedText("<Macro '" + v.as_object<MacroObject>()->node->name + "'>");
  if (v.as_object<NamespaceObject>()) return MaskedText("<Namespace>");
  usable(v);
  charge_value(v);
  MaskedText text = python_str(v);
  charge_bytes(text.held());
  return text;
}

std::vector<Value> Interp::iterate(const Value& v) {
  std::vector<Value> out;
  usable(v);
  switch (v.kind()) {
    case Kind::undefined:
      return out;
    case Kind::list:
    case Kind::tuple:
      charge(static_cast<int64_t>(v.items().size()));
      return v.items();
    case Kind::dict:
      for (const auto& [key, value] : v.as_dict().entries) out.push_back(key);
      break;
    case Kind::string: {
      const MaskedText& text = v.text();
      for (size_t i = 0; i < text.size();) {
        const size_t begin = i;
        utf8_next(text.bytes(), i);
        out.push_back(string(text.sub(begin, i)));
      }
      break;
    }
    default:
      fail(std::string("'") + type_name(v) + "' object is not iterable");
  }
  charge(static_cast<int64_t>(out.size()));
  return out;
}

Value CallArgs::get(size_t place, std::string_view name, Value fallback) {
  if (place < positional.size()) return positional[place];
  for (size_t i = 0; i < named.size(); ++i)
    if (named[i].first == name) {
      used |= uint64_t{1} << (i & 63);
      return named[i].second;
    }
  return fallback;
}

bool CallArgs::has(size_t place, std::string_view name) const {
  if (place < positional.size()) return true;
  for (const auto& [key, value] : named)
    if (key == name) return true;
  return false;
}

Value CallArgs::need(size_t place, std::string_view name, const char* callee) {
  if (!has(place, name))
    throw Error("chat template", std::string(callee) + ": argument '" + std::string(name) + "' is missing");
  return get(place, name);
}

void CallArgs::done(size_t max, std::string_view callee) const {
  if (positional.size() > max)
    throw Error("chat template", std::string(callee) + " takes at most " + std::to_string(max) + " arguments, " +
                                     std::to_string(positional.size()) + " were given");
  for (size_t i = 0; i < named.size(); ++i)
    if (i >= 64 || !(used >> i & 1))
      throw Error("chat template", std::string(callee) + " got an unexpected argument '" + named[i].first + "'");
}

Value BuiltinObject::call(Interp& interp, CallArgs& args) {
  interp.charge_bytes(self.is(Kind::string) ? self.bytes().size() : 0);
  Value result = function(interp, self, args);
  args.done(max_args, name);
  return result;
}

Value Interp::call(const Value& callee, CallArgs& args) {
  // A macro may set the variable that it is called by.
  const Value held = callee;  // NOLINT(performance-unnecessary-copy-initialization)
  if (const auto callable = held.as_object<Callable>()) {
    const Depth depth(*this);
    return callable->call(*this, args);
  }
  defined(callee);
  fail(std::string("'") + type_name(callee) + "' object is not callable");
}

Value Interp::apply_filter(std::string_view name, const Value& operand, CallArgs& args) {
  const BuiltinEntry* entry = find_filter(name);
  if (!entry && strict()) entry = look_up(regex_filters(), name);
  if (!entry) fail("no filter named '" + std::string(name) + "'");
  if (name != "default" && name != "d") usable(operand);
  charge_bytes(operand.is(Kind::string) ? operand.bytes().size() : 0);
  Value result = entry->function(*this, operand, args);
  args.done(entry->max_args, name);
  return result;
}

bool Interp::apply_test(std::string_view name, const Value& operand, CallArgs& args) {
  const BuiltinEntry* entry = find_test(name);
  if (!entry) fail("no test named '" + std::string(name) + "'");
  charge_bytes(operand.is(Kind::string) ? operand.bytes().size() : 0);
  const Value result = entry->function(*this, operand, args);
  args.done(entry->max_args, name);
  return truth(result);
}

}  // namespace birkhoff::text::chat::jinja
