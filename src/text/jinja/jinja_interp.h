// The tree walker. One Interp renders once.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/jinja.h"
#include "text/jinja/jinja_ast.h"
#include "text/jinja/value.h"

namespace birkhoff::text::chat::jinja {

class Interp;

// Arguments of a call. get marks named arguments as used, done() refuses the ones that nobody asked for.
struct CallArgs {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
  uint64_t used = 0;

  // Argument by place or name; otherwise fallback.
  Value get(size_t place, std::string_view name, Value fallback = Value::none());
  Value need(size_t place, std::string_view name, const char* callee);
  bool has(size_t place, std::string_view name) const;
  // Throws Error: more than max positional arguments or an unknown named one.
  void done(size_t max, std::string_view callee) const;
};

struct Scope {
  std::shared_ptr<Scope> parent;
  std::vector<std::pair<int, Value>> variables;
  Value* find(int id) {
    for (auto& [key, value] : variables)
      if (key == id) return &value;
    return nullptr;
  }
};
using ScopePtr = std::shared_ptr<Scope>;

struct Callable : Object {
  virtual Value call(Interp& interp, CallArgs& args) = 0;
};

struct NamespaceObject : Object {
  DictObject attributes;
};

struct LoopObject : Callable {
  std::vector<Value> items;
  size_t index0 = 0;
  int depth0 = 0;
  Value last_changed;
  bool changed_called = false;
  const Node* node = nullptr;  // of a recursive loop
  ScopePtr scope;              // around the loop
  Value call(Interp& interp, CallArgs& args) override;
};

struct MacroObject : Callable {
  const Node* node = nullptr;
  ScopePtr scope;
  Value call(Interp& interp, CallArgs& args) override;
};

struct CyclerObject : Object {
  std::vector<Value> items;
  size_t position = 0;
};

// Filters, tests, functions and methods that need no state of their own.
using Builtin = Value (*)(Interp&, const Value& self, CallArgs&);
struct BuiltinObject : Callable {
  Builtin function = nullptr;
  Value self;
  std::string name;
  size_t max_args = 0;
  Value call(Interp& interp, CallArgs& args) override;
};

struct BuiltinEntry {
  Builtin function;
  size_t max_args;
};
// nullptr when there is none of that name.
const BuiltinEntry* find_filter(std::string_view name);
const BuiltinEntry* find_test(std::string_view name);
const BuiltinEntry* find_global(std::string_view name);
const BuiltinEntry* find_method(const Value& self, std::string_view name);
// Methods that would change their object, and attributes with two underscores.
bool is_refused(const Value& self, std::string_view name);

class Interp {
 public:
  Interp(const Tree& tree, const DictObject& context, const Limits& limits, std::time_t now);
  ~Interp();
  MaskedText run();
  Value value();  // of the one expression that is the template

  // For builtins. All throw Error with the line of the statement being run.
  void charge(int64_t steps);
  void charge_bytes(size_t bytes) { charge(static_cast<int64_t>(bytes / 64) + 1); }
  // For a walk through v, and for a search of needle bytes in text bytes, whose worst case is their product.
  void charge_value(const Value& v) { charge(v.weight()); }
  void charge_search(size_t text, size_t needle) {
    charge(static_cast<int64_t>(text / 64 + text / 64 * (needle / 64)) + 1);
  }
  void check_size(size_t bytes) const;  // of a string that is being put together
  Value string(MaskedText text);        // charged
  Value string(std::string bytes) { return string(MaskedText(std::move(bytes))); }
  Value list(std::vector<Value> items) { return container(Value::list(std::move(items))); }
  Value tuple(std::vector<Value> items) { return container(Value::tuple(std::move(items))); }
  Value container(Value v);  // charges a fresh list, tuple or dict
  [[noreturn]] void fail(const std::string& what, const std::string& hint = "") const;
  Value call(const Value& callee, CallArgs& args);
  Value apply_filter(std::string_view name, const Value& operand, CallArgs& args);
  bool apply_test(std::string_view name, const Value& operand, CallArgs& args);
  Value attribute(const Value& object, const std::string& name);  // object.name
  Value item(const Value& object, const Value& key);              // object[key]
  // Elements of what `for` accepts: copies.
  std::vector<Value> iterate(const Value& v);
  bool holds(const Value& v) const;           // truth
  const Value& usable(const Value& v) const;  // refuses undefined where the dialect does
  bool contains(const Value& container, const Value& element);
  MaskedText str(const Value& v);  // with names for objects
  Value make_namespace(CallArgs& args);
  Value arithmetic(const std::string& op, const Value& a, const Value& b);
  const Limits& limits() const { return limits_; }
  std::time_t now() const { return now_; }

 private:
  friend struct LoopObject;
  friend struct MacroObject;
  enum class Flow : uint8_t { normal, broken, continued };
  struct Depth;

  Value eval(const Node& node);
  Value eval_name(const Node& node);
  Value eval_call(const Node& node);
  Value eval_compare(const Node& node);
  bool compare_once(const std::string& op, const Value& a, const Value& b);
  Value eval_concat(const Node& node);
  Value eval_dict(const Node& node);
  Value eval_slice(const Node& node);
  Value eval_filter(const Node& node);
  std::vector<Value> eval_kids(const Node& node);
  CallArgs eval_args(const Args& args);
  Value add(const Value& a, const Value& b);
  Value repeat(const Value& sequence, const Value& count);
  Value integer_arithmetic(char op, int64_t a, int64_t b);
  const Value& defined(const Value& v) const;  // refuses undefined
  bool strict() const { return tree_.dialect == Dialect::task; }
  void release(const Value& v) const;

  Flow exec(const Body& body);
  Flow exec(const Node& node);
  Flow exec_if(const Node& node);
  Flow exec_for(const Node& node);
  Flow run_loop(const Node& node, const Value& iterable, ScopePtr scope, int depth0);
  Flow exec_with(const Node& node);
  void exec_set(const Node& node);
  void exec_macro(const Node& node);
  void exec_call_block(const Node& node);
  Value captured(const Body& body);
  Value filtered(const Node& filter, const Value& operand);
  void assign(const Node& target, const Value& value);
  void bind(int id, const Value& value);
  void emit(const MaskedText& text);
  Value run_macro(const MacroObject& macro, CallArgs& args);
  std::shared_ptr<MacroObject> make_macro(const Node& node);

  const Tree& tree_;
  const Limits limits_;
  const std::time_t now_;
  int64_t steps_ = 0, live_ = 0;
  int depth_ = 0, line_ = 0;
  // Namespaces and scopes with macros may refer to themselves; they are emptied at the end.
  std::vector<std::shared_ptr<NamespaceObject>> namespaces_;
  std::vector<ScopePtr> closures_;
  std::vector<Value> globals_;  // by name id; what the caller passed and top-level assignments
  std::vector<char> has_global_;
  struct {
    int loop = -1, varargs = -1, kwargs = -1, caller = -1;
  } ids_;           // of the names that the interpreter binds itself, where the template says them
  ScopePtr scope_;  // null at the top level
  MaskedText* out_ = nullptr;
  const Value* filter_block_operand_ = nullptr;
};

struct Interp::Depth {
  explicit Depth(Interp& interp) : i(interp) {
    if (++i.depth_ > i.limits_.depth) {
      --i.depth_;
      i.fail("nested or recursive deeper than " + std::to_string(i.limits_.depth), "does a macro call itself?");
    }
  }
  ~Depth() { --i.depth_; }
  Interp& i;
};

}  // namespace birkhoff::text::chat::jinja
