#include "text/jinja/jinja_parser.h"

#include "core/error.h"

namespace birkhoff::text::chat::jinja {

Tree parse(std::string_view source, Dialect dialect) {
  Tree tree = Parser(tokenize(source, dialect)).run();
  tree.dialect = dialect;
  return tree;
}

Tree Parser::run() {
  Tree tree;
  tree.body = body_until({});
  if (now().token != Token::end) fail("unexpected " + describe());
  tree.names = std::move(names_);
  return tree;
}

bool Parser::take_op(std::string_view op) {
  const bool found = is_op(op);
  if (found) next();
  return found;
}

bool Parser::take_name(std::string_view name) {
  const bool found = is_name(name);
  if (found) next();
  return found;
}

void Parser::expect_op(std::string_view op) {
  if (!take_op(op)) fail("'" + std::string(op) + "' was expected, found " + describe());
}

std::string Parser::expect_name() {
  if (now().token != Token::name) fail("a name was expected, found " + describe());
  std::string name = now().text;
  next();
  return name;
}

std::string Parser::describe() const {
  switch (now().token) {
    case Token::end:
      return "the end of the template";
    case Token::block_end:
      return "'%}'";
    case Token::print_end:
      return "'}}'";
    case Token::string:
      return "a string";
    default:
      return "'" + now().text.substr(0, 40) + "'";
  }
}

NodePtr Parser::make(NodeKind kind) const {
  auto node = std::make_unique<Node>();
  node->kind = kind;
  node->line = now().line;
  return node;
}

void Parser::settle(Node& parent, int kid_depth) const {
  parent.depth = std::max(parent.depth, kid_depth + 1);
  if (parent.depth > kMaxTreeDepth) fail("an expression or block nested deeper than " + std::to_string(kMaxTreeDepth));
}

void Parser::adopt(Node& parent, NodePtr kid) {
  if (kid) settle(parent, kid->depth);
  parent.kids.push_back(std::move(kid));
}

void Parser::settle_args(Node& parent) const {
  for (const NodePtr& arg : parent.args.positional) settle(parent, arg->depth);
  for (const auto& [name, arg] : parent.args.named) settle(parent, arg->depth);
  for (const NodePtr* arg : {&parent.args.star, &parent.args.star_star})
    if (*arg) settle(parent, (*arg)->depth);
}

void Parser::settle_body(Node& parent, const Body& body) const {
  for (const NodePtr& kid : body) settle(parent, kid->depth);
}

int Parser::intern(const std::string& name) {
  const auto [it, fresh] = ids_.try_emplace(name, static_cast<int>(names_.size()));
  if (fresh) names_.push_back(name);
  return it->second;
}

NodePtr Parser::name_node(const std::string& name) {
  NodePtr node = make(NodeKind::name);
  node->name = name;
  node->id = intern(name);
  return node;
}

// Nodes up to a block whose tag is one of ends (its tag is the current token then) or the end of the template.
Body Parser::body_until(std::initializer_list<std::string_view> ends) {
  const Nesting nesting(*this);
  Body body;
  while (now().token != Token::end) {
    if (now().token == Token::data) {
      NodePtr node = make(NodeKind::text);
      node->value = Value::string(now().text);
      body.push_back(std::move(node));
      next();
    } else if (now().token == Token::print_begin) {
      NodePtr node = make(NodeKind::print);
      next();
      adopt(*node, parse_tuple(true));
      if (now().token != Token::print_end) fail("'}}' was expected, found " + describe());
      next();
      body.push_back(std::move(node));
    } else {
      next();  // {%
      for (const std::string_view end : ends)
        if (is_name(end)) return body;
      body.push_back(statement());
      if (now().token != Token::block_end) fail("'%}' was expected, found " + describe());
      next();
    }
  }
  if (ends.size() != 0) fail("the template ends where {% " + std::string(*ends.begin()) + " %} was expected");
  return body;
}

// The current token is an end tag that body_until found; %} is left for the caller of statement().
void Parser::end_block(std::string_view tag) {
  if (!take_name(tag)) fail("{% " + std::string(tag) + " %} was expected, found " + describe());
}

NodePtr Parser::statement() {
  const int line = now().line;
  const std::string tag = expect_name();
  if (tag == "for") return parse_for();
  if (tag == "if") return parse_if();
  if (tag == "set") return parse_set();
  if (tag == "macro") return parse_macro();
  if (tag == "call") return parse_call_block();
  if (tag == "filter") return parse_filter_block();
  if (tag == "with") return parse_with();
  if (tag == "generation" || tag == "block") return parse_scope(tag);
  if (tag == "print") {
    NodePtr node = make(NodeKind::print);
    do adopt(*node, expression());
    while (take_op(",") && now().token != Token::block_end);
    return node;
  }
  if (tag == "break" || tag == "continue") {
    if (loops_ == 0) template_error(line, "{% " + tag + " %} outside of a loop");
    return make(tag == "break" ? NodeKind::loop_break : NodeKind::loop_continue);
  }
  for (const std::string_view file : {"include", "import", "from", "extends"})
    if (tag == file)
      template_error(line, "{% " + tag + " %} is refused: a chat template reads no files", "inline what it would read");
  template_error(line, "unknown tag '" + tag + "'");
}

// A name, names joined by commas, or (for set) name.attribute.
NodePtr Parser::parse_target(bool attributes) {
  const auto one = [&]() -> NodePtr {
    const bool parenthesis = take_op("(");
    NodePtr node;
    if (parenthesis) {
      node = parse_target(false);
      expect_op(")");
      return node;
    }
    const std::string name = expect_name();
    for (const std::string_view fixed : {"true", "false", "none", "True", "False", "None"})
      if (name == fixed) fail("cannot assign to '" + name + "'");
    node = name_node(name);
    if (!attributes || !take_op(".")) return node;
    NodePtr attribute = make(NodeKind::attribute);
    attribute->name = expect_name();
    adopt(*attribute, std::move(node));
    return attribute;
  };
  const Nesting nesting(*this);
  NodePtr first = one();
  if (!is_op(",")) return first;
  NodePtr tuple = make(NodeKind::tuple);
  adopt(*tuple, std::move(first));
  while (take_op(",") && (now().token == Token::name || is_op("("))) {
    if (is_name("in")) break;
    adopt(*tuple, one());
  }
  return tuple;
}

NodePtr Parser::parse_for() {
  NodePtr node = make(NodeKind::for_loop);
  adopt(*node, parse_target(false));
  if (!take_name("in")) fail("'in' was expected, found " + describe());
  adopt(*node, parse_tuple(false));
  NodePtr condition;
  if (take_name("if")) condition = expression();
  adopt(*node, std::move(condition));
  node->flag = take_name("recursive");
  if (now().token != Token::block_end) fail("'%}' was expected, found " + describe());
  next();
  ++loops_;
  node->body = body_until({"endfor", "else"});
  --loops_;
  if (take_name("else")) {
    if (now().token != Token::block_end) fail("'%}' was expected, found " + describe());
    next();
    node->other = body_until({"endfor"});
  }
  end_block("endfor");
  settle_body(*node, node->body);
  settle_body(*node, node->other);
  return node;
}

NodePtr Parser::parse_if() {
  NodePtr node = make(NodeKind::if_else);
  do {
    adopt(*node, parse_tuple(false));
    if (now().token != Token::block_end) fail("'%}' was expected, found " + describe());
    next();
    node->bodies.push_back(body_until({"endif", "elif", "else"}));
    settle_body(*node, node->bodies.back());
  } while (take_name("elif"));
  if (take_name("else")) {
    if (now().token != Token::block_end) fail("'%}' was expected, found " + describe());
    next();
    node->other = body_until({"endif"});
    settle_body(*node, node->other);
  }
  end_block("endif");
  return node;
}

NodePtr Parser::parse_set() {
  NodePtr node = make(NodeKind::set);
  adopt(*node, parse_target(true));
  if (take_op("=")) {
    adopt(*node, parse_tuple(true));
    return node;
  }
  node->kind = NodeKind::set_block;
  NodePtr filter;
  while (take_op("|")) filter = parse_filter(std::move(filter));
  adopt(*node, std::move(filter));
  if (now().token != Token::block_end) fail("'=' or '%}' was expected, found " + describe());
  next();
  node->body = body_until({"endset"});
  settle_body(*node, node->body);
  end_block("endset");
  return node;
}

void Parser::parse_parameters(Node& node) {
  expect_op("(");
  while (!is_op(")")) {
    node.names.push_back(expect_name());
    node.ids.push_back(intern(node.names.back()));
    if (take_op("="))
      adopt(node, expression());
    else if (!node.kids.empty() && node.kind == NodeKind::macro)
      fail("a parameter without a default follows one that has it");
    if (!take_op(",")) break;
  }
  expect_op(")");
}

NodePtr Parser::parse_macro() {
  NodePtr node = make(NodeKind::macro);
  node->name = expect_name();
  node->id = intern(node->name);
  parse_parameters(*node);
  if (now().token != Token::block_end) fail("'%}' was expected, found " + describe());
  next();
  const int loops = std::exchange(loops_, 0);
  node->body = body_until({"endmacro"});
  loops_ = loops;
  settle_body(*node, node->body);
  end_block("endmacro");
  if (now().token == Token::name && now().text == node->name) next();
  return node;
}

NodePtr Parser::parse_call_block() {
  NodePtr caller = make(NodeKind::macro);
  caller->name = "caller";
  caller->id = intern("caller");
  if (is_op("(")) parse_parameters(*caller);
  NodePtr node = make(NodeKind::call_block);
  NodePtr call = expression();
  if (call->kind != NodeKind::call) fail("{% call %} expects a call");
  adopt(*node, std::move(call));
  if (now().token != Token::block_end) fail("'%}' was expected, found " + describe());
  next();
  const int loops = std::exchange(loops_, 0);
  caller->body = body_until({"endcall"});
  loops_ = loops;
  settle_body(*caller, caller->body);
  end_block("endcall");
  adopt(*node, std::move(caller));
  return node;
}

NodePtr Parser::parse_filter_block() {
  NodePtr node = make(NodeKind::filter_block);
  NodePtr filter = parse_filter(nullptr);
  while (take_op("|")) filter = parse_filter(std::move(filter));
  adopt(*node, std::move(filter));
  if (now().token != Token::block_end) fail("'%}' was expected, found " + describe());
  next();
  node->body = body_until({"endfilter"});
  settle_body(*node, node->body);
  end_block("endfilter");
  return node;
}

NodePtr Parser::parse_with() {
  NodePtr node = make(NodeKind::with);
  while (now().token != Token::block_end) {
    if (!node->kids.empty()) expect_op(",");
    adopt(*node, parse_target(false));
    expect_op("=");
    adopt(*node, expression());
  }
  next();
  node->body = body_until({"endwith"});
  settle_body(*node, node->body);
  end_block("endwith");
  return node;
}

NodePtr Parser::parse_scope(const std::string& tag) {
  NodePtr node = make(NodeKind::scope);
  if (tag == "block") {
    node->name = expect_name();
    while (now().token == Token::name) next();  // scoped, required
  }
  if (now().token != Token::block_end) fail("'%}' was expected, found " + describe());
  next();
  const std::string end = "end" + tag;
  node->body = body_until({end});
  settle_body(*node, node->body);
  end_block(end);
  if (tag == "block" && now().token == Token::name) next();
  return node;
}

}  // namespace birkhoff::text::chat::jinja
