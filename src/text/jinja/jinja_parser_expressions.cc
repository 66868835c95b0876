#include <charconv>
#include <cstdlib>

#include "text/jinja/jinja_parser.h"

namespace birkhoff::text::chat::jinja {

NodePtr Parser::expression() {
  const Nesting nesting(*this);
  NodePtr value = parse_or();
  while (take_name("if")) {
    NodePtr node = make(NodeKind::conditional);
    adopt(*node, parse_or());
    adopt(*node, std::move(value));
    NodePtr other;
    if (take_name("else")) other = expression();
    adopt(*node, std::move(other));
    value = std::move(node);
  }
  return value;
}

NodePtr Parser::binary(NodePtr left, NodePtr right, const std::string& op) {
  NodePtr node = make(NodeKind::binary);
  node->name = op;
  adopt(*node, std::move(left));
  adopt(*node, std::move(right));
  return node;
}

NodePtr Parser::parse_or() {
  NodePtr left = parse_and();
  while (take_name("or")) {
    left = binary(std::move(left), parse_and(), "or");
    left->kind = NodeKind::logical_or;
  }
  return left;
}

NodePtr Parser::parse_and() {
  NodePtr left = parse_not();
  while (take_name("and")) {
    left = binary(std::move(left), parse_not(), "and");
    left->kind = NodeKind::logical_and;
  }
  return left;
}

NodePtr Parser::parse_not() {
  if (!take_name("not")) return parse_compare();
  const Nesting nesting(*this);
  NodePtr node = make(NodeKind::logical_not);
  adopt(*node, parse_not());
  return node;
}

NodePtr Parser::parse_compare() {
  NodePtr first = parse_sum();
  NodePtr node;
  while (true) {
    std::string op;
    if (now().token == Token::op) {
      for (const std::string_view known : {"==", "!=", "<", "<=", ">", ">="})
        if (now().text == known) op = known;
      if (op.empty()) break;
      next();
    } else if (take_name("in")) {
      op = "in";
    } else if (is_name("not") && look().token == Token::name && look().text == "in") {
      next();
      next();
      op = "not in";
    } else {
      break;
    }
    if (!node) {
      node = make(NodeKind::compare);
      adopt(*node, std::move(first));
    }
    node->names.push_back(op);
    adopt(*node, parse_sum());
  }
  return node ? std::move(node) : std::move(first);
}

NodePtr Parser::parse_sum() {
  NodePtr left = parse_concat();
  while (is_op("+") || is_op("-")) {
    const std::string op = now().text;
    next();
    left = binary(std::move(left), parse_concat(), op);
  }
  return left;
}

NodePtr Parser::parse_concat() {
  NodePtr first = parse_product();
  if (!is_op("~")) return first;
  NodePtr node = make(NodeKind::concat);
  adopt(*node, std::move(first));
  while (take_op("~")) adopt(*node, parse_product());
  return node;
}

NodePtr Parser::parse_product() {
  NodePtr left = parse_power();
  while (is_op("*") || is_op("/") || is_op("//") || is_op("%")) {
    const std::string op = now().text;
    next();
    left = binary(std::move(left), parse_power(), op);
  }
  return left;
}

NodePtr Parser::parse_power() {
  NodePtr left = parse_unary(true);
  while (take_op("**")) left = binary(std::move(left), parse_unary(true), "**");
  return left;
}

NodePtr Parser::parse_unary(bool with_filter) {
  const Nesting nesting(*this);
  NodePtr node;
  if (is_op("-") || is_op("+")) {
    node = make(is_op("-") ? NodeKind::negative : NodeKind::positive);
    next();
    adopt(*node, parse_unary(false));
  } else {
    node = parse_primary();
  }
  node = parse_postfix(std::move(node));
  return with_filter ? parse_filters(std::move(node)) : std::move(node);
}

NodePtr Parser::parse_primary() {
  NodePtr node = make(NodeKind::constant);
  switch (now().token) {
    case Token::name: {
      const std::string name = now().text;
      if (name == "true" || name == "True" || name == "false" || name == "False") {
        node->value = Value::boolean(name == "true" || name == "True");
      } else if (name == "none" || name == "None") {
        node->value = Value::none();
      } else {
        node = name_node(name);
      }
      next();
      return node;
    }
    case Token::string: {
      std::string text;
      for (; now().token == Token::string; next()) text += now().text;
      node->value = Value::string(text);
      return node;
    }
    case Token::integer:
    case Token::real:
      return parse_number();
    case Token::op:
      if (take_op("(")) {
        node = parse_tuple(true, true);
        expect_op(")");
        return node;
      }
      if (is_op("[")) return parse_list();
      if (is_op("{")) return parse_dict();
      [[fallthrough]];
    default:
      fail("unexpected " + describe());
  }
}

NodePtr Parser::parse_number() {
  NodePtr node = make(NodeKind::constant);
  std::string text = now().text;
  if (now().token == Token::real) {
    node->value = Value::real(std::strtod(text.c_str(), nullptr));
  } else {
    int base = 10;
    if (text.size() > 2 && text[0] == '0' && text[1] > '9') {
      base = (text[1] | 0x20) == 'x' ? 16 : (text[1] | 0x20) == 'o' ? 8 : 2;
      text.erase(0, 2);
    }
    int64_t n = 0;
    const auto result = std::from_chars(text.data(), text.data() + text.size(), n, base);
    if (result.ec != std::errc() || result.ptr != text.data() + text.size())
      fail("number " + now().text.substr(0, 40) + " is out of range");
    node->value = Value::integer(n);
  }
  next();
  return node;
}

NodePtr Parser::parse_list() {
  NodePtr node = make(NodeKind::list);
  expect_op("[");
  while (!is_op("]")) {
    adopt(*node, expression());
    if (!take_op(",")) break;
  }
  expect_op("]");
  return node;
}

NodePtr Parser::parse_dict() {
  NodePtr node = make(NodeKind::dict);
  expect_op("{");
  while (!is_op("}")) {
    adopt(*node, expression());
    expect_op(":");
    adopt(*node, expression());
    if (!take_op(",")) break;
  }
  expect_op("}");
  return node;
}

// One expression, or several joined by commas. conditional: the inline if is allowed (not in `for ... in` and `if`).
NodePtr Parser::parse_tuple(bool conditional, bool in_parentheses) {
  const auto one = [&] { return conditional ? expression() : parse_or(); };
  const auto at_end = [&] {
    const Token t = now().token;
    return t == Token::print_end || t == Token::block_end || t == Token::end || is_op(")") || is_name("recursive") ||
           (!conditional && is_name("if"));
  };
  if (in_parentheses && is_op(")")) return make(NodeKind::tuple);
  NodePtr first = one();
  if (!is_op(",")) return first;
  NodePtr node = make(NodeKind::tuple);
  adopt(*node, std::move(first));
  while (take_op(",")) {
    if (at_end()) break;
    adopt(*node, one());
  }
  return node;
}

NodePtr Parser::parse_postfix(NodePtr node) {
  while (true) {
    if (is_op(".") || is_op("["))
      node = parse_subscript(std::move(node));
    else if (is_op("("))
      node = parse_call(std::move(node));
    else
      return node;
  }
}

NodePtr Parser::parse_filters(NodePtr node) {
  while (true) {
    if (take_op("|"))
      node = parse_filter(std::move(node));
    else if (take_name("is"))
      node = parse_test(std::move(node));
    else if (is_op("("))
      node = parse_call(std::move(node));
    else
      return node;
  }
}

NodePtr Parser::parse_filter(NodePtr operand) {
  NodePtr node = make(NodeKind::filter);
  node->name = expect_name();
  while (take_op(".")) node->name += "." + expect_name();
  adopt(*node, std::move(operand));
  if (is_op("(")) node->args = parse_args();
  settle_args(*node);
  return node;
}

NodePtr Parser::parse_test(NodePtr operand) {
  const bool negated = take_name("not");
  NodePtr node = make(NodeKind::test);
  node->name = expect_name();
  while (take_op(".")) node->name += "." + expect_name();
  adopt(*node, std::move(operand));
  const Token t = now().token;
  if (is_op("(")) {
    node->args = parse_args();
  } else if ((t == Token::name && !is_name("else") && !is_name("or") && !is_name("and") && !is_name("if") &&
              !is_name("in") && !is_name("not")) ||
             t == Token::string || t == Token::integer || t == Token::real || is_op("[") || is_op("{")) {
    if (is_name("is")) fail("tests cannot be chained with 'is'");
    node->args.positional.push_back(parse_postfix(parse_primary()));
  }
  settle_args(*node);
  if (!negated) return node;
  NodePtr no = make(NodeKind::logical_not);
  adopt(*no, std::move(node));
  return no;
}

NodePtr Parser::parse_call(NodePtr callee) {
  NodePtr node = make(NodeKind::call);
  adopt(*node, std::move(callee));
  node->args = parse_args();
  settle_args(*node);
  return node;
}

Args Parser::parse_args() {
  const Nesting nesting(*this);
  Args args;
  expect_op("(");
  while (!is_op(")")) {
    if (take_op("**")) {
      args.star_star = expression();
    } else if (take_op("*")) {
      args.star = expression();
    } else if (now().token == Token::name && look().token == Token::op && look().text == "=") {
      std::string name = expect_name();
      expect_op("=");
      args.named.emplace_back(std::move(name), expression());
    } else {
      if (!args.named.empty()) fail("a positional argument follows a named one");
      args.positional.push_back(expression());
    }
    if (!take_op(",")) break;
  }
  expect_op(")");
  return args;
}

NodePtr Parser::parse_subscript(NodePtr object) {
  if (take_op(".")) {
    NodePtr node = make(NodeKind::attribute);
    if (now().token == Token::integer) {
      node->kind = NodeKind::item;
      adopt(*node, std::move(object));
      adopt(*node, parse_number());
      return node;
    }
    node->name = expect_name();
    node->value = Value::string(node->name);
    adopt(*node, std::move(object));
    return node;
  }
  expect_op("[");
  NodePtr node = make(NodeKind::item);
  adopt(*node, std::move(object));
  NodePtr first;
  if (!is_op(":")) first = expression();
  if (first && !is_op(":")) {
    if (is_op(",")) fail("a subscript takes one index");
    adopt(*node, std::move(first));
  } else {
    node->kind = NodeKind::slice;
    adopt(*node, std::move(first));
    for (int part = 0; part < 2; ++part) {
      NodePtr bound;
      if (take_op(":") && !is_op(":") && !is_op("]")) bound = expression();
      adopt(*node, std::move(bound));
    }
  }
  expect_op("]");
  return node;
}

}  // namespace birkhoff::text::chat::jinja
