// The tree of a template.
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/jinja.h"
#include "text/jinja/value.h"

namespace birkhoff::text::chat::jinja {

struct Node;
using NodePtr = std::unique_ptr<Node>;
using Body = std::vector<NodePtr>;

enum class NodeKind : uint8_t {
  // Expressions.               kids; other fields
  constant,     // value
  name,         // id
  list,         // elements
  tuple,        // elements
  dict,         // key, value, key, value, ...
  attribute,    // object; name
  item,         // object, index
  slice,        // object, start, stop, step (any of the three may be null)
  call,         // callee; args
  filter,       // operand (null in a filter block); name, args
  test,         // operand; name, args
  negative,     // operand
  positive,     // operand
  logical_not,  // operand
  binary,       // left, right; name is the operator
  compare,      // first, second, ...; names are the operators between them
  logical_and,  // left, right
  logical_or,   // left, right
  concat,       // operands of ~
  conditional,  // test, then, else (else may be null)
  // Statements.
  text,          // value
  print,         // expressions
  for_loop,      // target, iterable, condition (may be null); flag: recursive; body, other: {% else %}
  if_else,       // test of each branch in kids, branches in bodies; other: {% else %}
  set,           // target, expression
  set_block,     // target, filter (may be null); body
  macro,         // defaults of the last parameters; names: parameters, id, name; body
  call_block,    // the call; names and trailing kids: parameters and defaults of caller; body
  filter_block,  // a filter chain whose innermost operand is null; body
  with,          // target, expression, target, expression, ...; body
  scope,         // body: {% block %}, {% generation %}
  loop_break,
  loop_continue,
};

struct Args {
  std::vector<NodePtr> positional;
  std::vector<std::pair<std::string, NodePtr>> named;
  NodePtr star, star_star;
};

struct Node {
  NodeKind kind = NodeKind::constant;
  int line = 0;
  int depth = 1;  // height of the tree below, bounded by the parser: no recursion over it can overflow the stack
  int id = -1;    // of names: index into Tree::names
  bool flag = false;
  Value value;
  std::string name;
  std::vector<std::string> names;
  std::vector<int> ids;  // parameters of macros
  std::vector<NodePtr> kids;
  Args args;
  Body body, other;
  std::vector<Body> bodies;
};

struct Tree {
  Body body;
  std::vector<std::string> names;  // every variable name, interned
  Dialect dialect = Dialect::chat;
};

// Throws Error with the line: syntax, unknown tag, nesting beyond kMaxTreeDepth; include, import, from and extends are
// refused by name, since a template reads no files.
Tree parse(std::string_view source, Dialect dialect);
inline constexpr int kMaxTreeDepth = 250;

}  // namespace birkhoff::text::chat::jinja
