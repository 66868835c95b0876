// The dialect of evaluation tasks: Jinja2's Environment with StrictUndefined and keep_trailing_newline. Expectations
// were made with Jinja2 3.1.6 and Python's re.
#include <gtest/gtest.h>

#include "core/error.h"
#include "text/jinja/jinja.h"
#include "text/jinja/json_value.h"
#include "text/jinja/python_print.h"

namespace birkhoff::text::chat::jinja {
namespace {

const Value& task_context() {
  static const Value context = parse_json(R"({"q": " a {{ b }} <s> ", "n": 3, "list": ["x", "y"], "empty": ""})");
  return context;
}

std::string in_task(const std::string& source) {
  return Template(source, Dialect::task).render(task_context().as_dict()).bytes();
}

std::string value_of(const std::string& source) {
  return python_repr(Expression(source, Dialect::task).evaluate(task_context().as_dict())).bytes();
}

TEST(JinjaTaskDialect, WhiteSpaceStaysAsItIsWritten) {
  EXPECT_EQ(in_task("{% if n %}\nx\n  {% endif %}\ny\n"), "\nx\n  \ny\n");
  EXPECT_EQ(in_task("a {# c #}\nb\n"), "a \nb\n");
  EXPECT_EQ(in_task("a\n  {%- if n %} b {%- endif -%}\n c"), "a bc");
  EXPECT_EQ(Template("{% if true %}\nx\n{% endif %}\n").render({}).bytes(), "x\n");  // of conversations
}

TEST(JinjaTaskDialect, TextOfADocumentIsNoTemplate) { EXPECT_EQ(in_task("{{ q }}|"), " a {{ b }} <s> |"); }

TEST(JinjaTaskDialect, WhatIsUndefinedMayBeAskedForAndNotUsed) {
  EXPECT_EQ(in_task("{{ z is defined }} {{ z|default('d') }} {{ 'y' if z is undefined else z }}"), "False d y");
  for (const char* source : {"{{ z }}", "{% if z %}{% endif %}", "{{ z == 1 }}", "{{ 1 in z }}", "{{ z|length }}",
                             "{% for i in z %}{% endfor %}", "{{ q ~ z }}", "{{ z.a }}", "{{ not z }}", "{{ list[7] }}",
                             "{{ z|regex_replace('a', 'b') }}"})
    EXPECT_THROW(in_task(source), Error) << source;
  EXPECT_EQ(Template("{{ z }}{{ z|length }}{% if z %}{% endif %}.").render({}).bytes(), "0.");  // of conversations
}

TEST(JinjaTaskDialect, ExpressionsAreValues) {
  EXPECT_EQ(value_of("[q.strip(), n + 1, {'k': list}]"), "['a {{ b }} <s>', 4, {'k': ['x', 'y']}]");
  EXPECT_EQ(value_of("list.index('y')"), "1");
  EXPECT_EQ(value_of("list|map('upper')|list"), "['X', 'Y']");
  for (const char* source : {"z", "n }} {{ n", "", "range", "n, )", "{% if n %}"})
    EXPECT_THROW(value_of(source), Error) << source;
}

TEST(JinjaTaskDialect, ValuesOutliveTheirExpression) {
  Value v;
  {
    const Expression e("['a' ~ n, {'b': ['c' ~ n]}]", Dialect::task);
    v = e.evaluate(task_context().as_dict());
  }
  EXPECT_EQ(python_repr(v).bytes(), "['a3', {'b': ['c3']}]");
}

TEST(JinjaTaskDialect, PatternsAreThoseOfPython) {
  EXPECT_EQ(value_of("'a [b] c [d] [e'|regex_replace('\\[.*?\\]', '')"), "'a  c  [e'");
  EXPECT_EQ(value_of("'abxd'|regex_replace('x*', '-')"), "'-a-b--d-'");
  EXPECT_EQ(value_of("'john smith'|regex_replace('(\\w+) (\\w+)', '\\\\2, \\\\g<1>')"), "'smith, john'");
  EXPECT_EQ(value_of("'aaa'|regex_replace('a', 'b', 2)"), "'bba'");
  EXPECT_EQ(value_of("'key=v'|regex_search('(\\w+)=(\\w+)(x)?')"), "['key=v', 'key', 'v', None]");
  EXPECT_EQ(value_of("'k'|regex_search('z')"), "None");
  EXPECT_EQ(value_of("['a1', 'b2']|map('regex_replace', '[0-9]', '')|list"), "['a', 'b']");
  for (const char* source : {"'a'|regex_replace('(', '')", "'a'|regex_replace('a', '\\\\1')", "'a'|regex_search(1)",
                             "'a'|regex_replace('a', '\\\\q')"})
    EXPECT_THROW(value_of(source), Error) << source;
  EXPECT_THROW(Template("{{ 'a'|regex_search('a') }}").render({}), Error);  // of conversations: no such filter
}

}  // namespace
}  // namespace birkhoff::text::chat::jinja
