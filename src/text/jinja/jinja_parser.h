// Recursive descent over the tokens of a template. Precedence is Jinja's, which differs from Python's in places:
// filters bind tighter than unary minus's operand's call, ~ stands between + and *.
#pragma once
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/jinja/jinja_ast.h"
#include "text/jinja/jinja_token.h"

namespace birkhoff::text::chat::jinja {

class Parser {
 public:
  explicit Parser(std::vector<Lexeme> tokens) : tokens_(std::move(tokens)) {}
  Tree run();

 private:
  // Tokens.
  const Lexeme& now() const { return tokens_[at_]; }
  const Lexeme& look() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  void next() { at_ += at_ + 1 < tokens_.size(); }
  bool is_op(std::string_view op) const { return now().token == Token::op && now().text == op; }
  bool is_name(std::string_view name) const { return now().token == Token::name && now().text == name; }
  bool take_op(std::string_view op);
  bool take_name(std::string_view name);
  void expect_op(std::string_view op);
  std::string expect_name();
  [[noreturn]] void fail(const std::string& what) const { template_error(now().line, what); }
  std::string describe() const;

  // Nodes.
  NodePtr make(NodeKind kind) const;
  void adopt(Node& parent, NodePtr kid);
  void settle(Node& parent, int kid_depth) const;
  void settle_args(Node& parent) const;
  void settle_body(Node& parent, const Body& body) const;
  int intern(const std::string& name);
  NodePtr name_node(const std::string& name);
  struct Nesting;  // counts recursion

  // Expressions (jinja_parser_expressions.cc).
  NodePtr expression();  // with the inline if
  NodePtr parse_or();
  NodePtr parse_and();
  NodePtr parse_not();
  NodePtr parse_compare();
  NodePtr parse_sum();
  NodePtr parse_concat();
  NodePtr parse_product();
  NodePtr parse_power();
  NodePtr parse_unary(bool with_filter);
  NodePtr parse_primary();
  NodePtr parse_number();
  NodePtr parse_list();
  NodePtr parse_dict();
  NodePtr parse_postfix(NodePtr node);
  NodePtr parse_filters(NodePtr node);
  NodePtr parse_filter(NodePtr node);
  NodePtr parse_test(NodePtr node);
  NodePtr parse_call(NodePtr callee);
  NodePtr parse_subscript(NodePtr object);
  Args parse_args();
  NodePtr parse_tuple(bool conditional, bool in_parentheses = false);
  NodePtr binary(NodePtr left, NodePtr right, const std::string& op);

  // Statements (jinja_parser.cc).
  Body body_until(std::initializer_list<std::string_view> ends);
  void end_block(std::string_view tag);
  NodePtr statement();
  NodePtr parse_for();
  NodePtr parse_if();
  NodePtr parse_set();
  NodePtr parse_macro();
  NodePtr parse_call_block();
  NodePtr parse_filter_block();
  NodePtr parse_with();
  NodePtr parse_scope(const std::string& tag);
  NodePtr parse_target(bool attributes);
  void parse_parameters(Node& node);

  std::vector<Lexeme> tokens_;
  size_t at_ = 0;
  int nesting_ = 0, loops_ = 0;
  std::vector<std::string> names_;
  std::unordered_map<std::string, int> ids_;
};

// Recursion of the parser itself, which bounds the tree from the other side.
struct Parser::Nesting {
  explicit Nesting(Parser& parser) : p(parser) {
    if (++p.nesting_ > kMaxTreeDepth) p.fail("nested deeper than " + std::to_string(kMaxTreeDepth));
  }
  ~Nesting() { --p.nesting_; }
  Parser& p;
};

}  // namespace birkhoff::text::chat::jinja
