// Statements.
#include "core/error.h"
#include "text/jinja/jinja_interp.h"

namespace birkhoff::text::chat::jinja {
namespace {

// Restores what a statement replaces, also when it throws.
template <class T>
class Swap {
 public:
  Swap(T& slot, T value) : slot_(slot), saved_(std::exchange(slot, std::move(value))) {}
  ~Swap() { slot_ = std::move(saved_); }

 private:
  T& slot_;
  T saved_;
};

ScopePtr scope_in(ScopePtr parent) {
  auto scope = std::make_shared<Scope>();
  scope->parent = std::move(parent);
  return scope;
}

}  // namespace

Interp::Flow Interp::exec(const Body& body) {
  for (const NodePtr& node : body)
    if (const Flow flow = exec(*node); flow != Flow::normal) return flow;
  return Flow::normal;
}

Interp::Flow Interp::exec(const Node& node) {
  const Depth depth(*this);
  charge(1);
  line_ = node.line;
  switch (node.kind) {
    case NodeKind::text:
      emit(node.value.text());
      return Flow::normal;
    case NodeKind::print:
      for (const NodePtr& kid : node.kids) emit(str(eval(*kid)));
      return Flow::normal;
    case NodeKind::if_else:
      return exec_if(node);
    case NodeKind::for_loop:
      return exec_for(node);
    case NodeKind::set:
    case NodeKind::set_block:
      exec_set(node);
      return Flow::normal;
    case NodeKind::macro:
      exec_macro(node);
      return Flow::normal;
    case NodeKind::call_block:
      exec_call_block(node);
      return Flow::normal;
    case NodeKind::filter_block:
      emit(str(filtered(*node.kids[0], captured(node.body))));
      return Flow::normal;
    case NodeKind::with:
      return exec_with(node);
    case NodeKind::scope: {
      const Swap scope(scope_, scope_in(scope_));
      return exec(node.body);
    }
    case NodeKind::loop_break:
      return Flow::broken;
    case NodeKind::loop_continue:
      return Flow::continued;
    default:
      fail("an expression where a statement was expected");
  }
}

void Interp::emit(const MaskedText& text) {
  charge_bytes(text.held());
  if (static_cast<int64_t>(out_->size() + text.size()) > limits_.output_bytes)
    fail("more than " + std::to_string(limits_.output_bytes) + " bytes of output");
  out_->append(text);
}

Interp::Flow Interp::exec_if(const Node& node) {
  for (size_t k = 0; k < node.kids.size(); ++k)
    if (holds(eval(*node.kids[k]))) return exec(node.bodies[k]);
  return exec(node.other);
}

Interp::Flow Interp::exec_for(const Node& node) {
  const Value iterable = eval(*node.kids[1]);
  return run_loop(node, iterable, scope_, 0);
}

Interp::Flow Interp::run_loop(const Node& node, const Value& iterable, ScopePtr scope, int depth0) {
  auto loop = std::make_shared<LoopObject>();
  loop->items = iterate(iterable);
  loop->depth0 = depth0;
  loop->node = &node;
  loop->scope = scope;
  const Swap restore(scope_, scope);
  if (node.kids[2]) {
    std::vector<Value> kept;
    for (const Value& v : loop->items) {
      scope_ = scope_in(scope);
      assign(*node.kids[0], v);
      if (holds(eval(*node.kids[2]))) kept.push_back(v);
    }
    loop->items = std::move(kept);
  }
  // A loop that its own scope holds would never be freed.
  struct Release {
    LoopObject& loop;
    ~Release() { loop.scope.reset(); }
  } release{*loop};
  for (size_t i = 0; i < loop->items.size(); ++i) {
    charge(1);
    loop->index0 = i;
    scope_ = scope_in(scope);
    if (ids_.loop >= 0) scope_->variables.emplace_back(ids_.loop, Value::object(loop));
    assign(*node.kids[0], loop->items[i]);
    if (exec(node.body) == Flow::broken) break;
  }
  if (loop->items.empty()) {
    scope_ = scope_in(scope);
    return exec(node.other);
  }
  return Flow::normal;
}

Interp::Flow Interp::exec_with(const Node& node) {
  ScopePtr inner = scope_in(scope_);
  std::vector<Value> values;
  for (size_t k = 1; k < node.kids.size(); k += 2) values.push_back(eval(*node.kids[k]));
  const Swap restore(scope_, std::move(inner));
  for (size_t k = 0; k < values.size(); ++k) assign(*node.kids[2 * k], values[k]);
  return exec(node.body);
}

void Interp::bind(int id, const Value& value) {
  if (!scope_) {
    globals_[static_cast<size_t>(id)] = value;
    has_global_[static_cast<size_t>(id)] = 1;
  } else if (Value* slot = scope_->find(id)) {
    *slot = value;
  } else {
    scope_->variables.emplace_back(id, value);
  }
}

void Interp::assign(const Node& target, const Value& value) {
  if (target.kind == NodeKind::name) return bind(target.id, value);
  if (target.kind == NodeKind::attribute) {
    const Value object = eval(*target.kids[0]);
    const auto ns = object.as_object<NamespaceObject>();
    if (!ns)
      fail("cannot assign attribute '" + target.name + "' on a " + type_name(object),
           "only namespace() objects have attributes that can be set");
    if (value.depth() >= kMaxDepth) fail("values nested deeper than " + std::to_string(kMaxDepth));
    ns->depth = std::max(ns->depth, value.depth() + 1);
    ns->attributes.set(target.name, value);
    return;
  }
  const std::vector<Value> parts = iterate(defined(value));
  if (parts.size() != target.kids.size())
    fail("cannot unpack " + std::to_string(parts.size()) + " values into " + std::to_string(target.kids.size()) +
         " names");
  for (size_t k = 0; k < parts.size(); ++k) assign(*target.kids[k], parts[k]);
}

Value Interp::captured(const Body& body) {
  MaskedText text;
  {
    const Swap out(out_, &text);
    const Swap scope(scope_, scope_in(scope_));
    exec(body);
  }
  return string(std::move(text));
}

Value Interp::filtered(const Node& filter, const Value& operand) {
  const Swap swap(filter_block_operand_, &operand);
  return eval(filter);
}

void Interp::exec_set(const Node& node) {
  Value value = node.kind == NodeKind::set ? eval(*node.kids[1]) : captured(node.body);
  if (node.kind == NodeKind::set_block && node.kids[1]) value = filtered(*node.kids[1], value);
  assign(*node.kids[0], value);
}

std::shared_ptr<MacroObject> Interp::make_macro(const Node& node) {
  charge(100);  // its scope lives to the end
  auto macro = std::make_shared<MacroObject>();
  macro->node = &node;
  macro->scope = scope_;
  if (scope_ && (closures_.empty() || closures_.back() != scope_)) closures_.push_back(scope_);
  return macro;
}

void Interp::exec_macro(const Node& node) { bind(node.id, Value::object(make_macro(node))); }

void Interp::exec_call_block(const Node& node) {
  const Node& call_node = *node.kids[0];
  const Value callee = eval(*call_node.kids[0]);
  CallArgs args = eval_args(call_node.args);
  args.named.emplace_back("caller", Value::object(make_macro(*node.kids[1])));
  emit(str(call(callee, args)));
}

Value Interp::run_macro(const MacroObject& macro, CallArgs& args) {
  const Node& node = *macro.node;
  ScopePtr scope = scope_in(macro.scope);
  const size_t count = node.names.size(), first_default = count - node.kids.size();
  const Swap restore_scope(scope_, scope);
  const int line = line_;
  for (size_t k = 0; k < count; ++k) {
    Value v = Value::undefined("parameter '" + node.names[k] + "' was not provided");
    if (args.has(k, node.names[k]))
      v = args.get(k, node.names[k]);
    else if (k >= first_default)
      v = eval(*node.kids[k - first_default]);
    scope->variables.emplace_back(node.ids[k], v);
  }
  // What is left over goes to varargs, kwargs and caller where the body names them.
  auto rest = std::make_shared<DictObject>();
  Value caller;
  for (size_t i = 0; i < args.named.size(); ++i) {
    const auto& [name, value] = args.named[i];
    if (args.used >> (i & 63) & 1) continue;
    if (name == "caller")
      caller = value;
    else
      rest->set(name, value);
  }
  const bool leftover = args.positional.size() > count || !rest->entries.empty();
  bool taken = false;
  std::vector<Value> extra;
  for (size_t k = count; k < args.positional.size(); ++k) extra.push_back(args.positional[k]);
  const auto give = [&](int id, const Value& v) {
    if (id < 0 || scope->find(id)) return false;
    scope->variables.emplace_back(id, v);
    return true;
  };
  if (give(ids_.varargs, tuple(extra))) taken = true;
  if (give(ids_.kwargs, container(Value::dict(rest)))) taken = true;
  if (!caller.is(Kind::undefined)) give(ids_.caller, caller);
  if (leftover && !taken)
    fail("macro '" + node.name + "' takes " + std::to_string(count) + " arguments and was given others");
  MaskedText text;
  {
    const Swap out(out_, &text);
    exec(node.body);
  }
  line_ = line;
  return string(std::move(text));
}

Value MacroObject::call(Interp& interp, CallArgs& args) { return interp.run_macro(*this, args); }

Value LoopObject::call(Interp& interp, CallArgs& args) {
  if (!node || !node->flag) interp.fail("loop(...) needs {% for ... recursive %}");
  const Value iterable = args.need(0, "iterable", "loop");
  MaskedText text;
  {
    const Swap out(interp.out_, &text);
    interp.run_loop(*node, iterable, scope, depth0 + 1);
  }
  return interp.string(std::move(text));
}

Value Interp::make_namespace(CallArgs& args) {
  charge(100);
  if (namespaces_.size() >= 50'000) fail("more than 50000 namespaces");
  auto ns = std::make_shared<NamespaceObject>();
  const auto set = [&](const Value& key, const Value& value) {
    if (value.depth() >= kMaxDepth) fail("values nested deeper than " + std::to_string(kMaxDepth));
    ns->depth = std::max(ns->depth, value.depth() + 1);
    ns->attributes.set(key, value);
  };
  if (!args.positional.empty()) {
    const Value& first = args.positional[0];
    if (!first.is(Kind::dict))
      fail(std::string("namespace() takes a dict or named arguments, not a ") + type_name(first));
    for (const auto& [key, value] : first.as_dict().entries) set(key, value);
  }
  for (size_t i = 0; i < args.named.size(); ++i) set(Value::string(args.named[i].first), args.named[i].second);
  args.used = ~uint64_t{0};
  namespaces_.push_back(ns);
  return Value::object(ns);
}

}  // namespace birkhoff::text::chat::jinja
