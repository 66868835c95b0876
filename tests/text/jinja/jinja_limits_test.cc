// What a template may not do: every one of these must be refused, quickly and without growing.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <ctime>

#include "core/error.h"
#include "text/jinja/jinja.h"

namespace birkhoff::text::chat::jinja {
namespace {

std::string complaint_of(const std::string& source) {
  try {
    Template(source).render({});
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

std::string repeated(const std::string& s, size_t n) {
  std::string out;
  for (size_t i = 0; i < n; ++i) out += s;
  return out;
}

class Refused : public testing::TestWithParam<std::pair<const char*, std::string>> {};

// Without limits these run for hours; the longest takes half a second of a processor, whatever else that processor
// does.
TEST_P(Refused, BeforeLong) {
  const std::clock_t begin = std::clock();
  EXPECT_NE(complaint_of(GetParam().second), "");
  EXPECT_LT(static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC, 20.0);
}

const std::string kLoops = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}";
const std::string kEnds = "{% endfor %}{% endfor %}{% endfor %}";

INSTANTIATE_TEST_SUITE_P(
    Templates, Refused,
    testing::Values(
        std::pair{"recursion", std::string("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}")},
        std::pair{"mutual recursion",
                  std::string("{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}")},
        std::pair{"caller recursion",
                  std::string("{% macro m() %}{% call m() %}x{% endcall %}{% endmacro %}{{ m() }}")},
        std::pair{
            "loop recursion",
            std::string("{% set ns = namespace(l=[1]) %}{% for i in ns.l recursive %}{{ loop(ns.l) }}{% endfor %}")},
        std::pair{"endless loops", kLoops + kEnds},
        std::pair{"endless loops with work", kLoops + "{% set x = a * b + c %}" + kEnds},
        std::pair{"huge range", std::string("{{ range(10**12) }}")},
        std::pair{"range of 1e6", std::string("{{ range(1000000)|length }}")},
        std::pair{"class", std::string("{{ ''.__class__ }}")},
        std::pair{"mro", std::string("{{ [].__class__.__mro__[1].__subclasses__() }}")},
        std::pair{"globals", std::string("{{ raise_exception.__globals__ }}")},
        std::pair{"init", std::string("{{ cycler.__init__ }}")},
        std::pair{"format attribute", std::string("{{ '{0.__class__}'.format(1) }}")},
        std::pair{"attr filter", std::string("{{ ''|attr('__class__') }}")},
        std::pair{"map attribute", std::string("{{ ['']|map(attribute='__class__')|list }}")},
        std::pair{"item", std::string("{{ ''['__class__'] }}")},
        std::pair{"10 MB of output", std::string("{% for i in range(100000) %}{{ 'x' * 100 }}{% endfor %}")},
        std::pair{
            "doubling",
            std::string(
                "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}")},
        std::pair{
            "doubling lists",
            std::string(
                "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}")},
        std::pair{"replace bomb", std::string("{{ ('x' * 100000).replace('x', 'y' * 100000) }}")},
        std::pair{"join bomb", std::string("{{ range(100000)|join('y' * 100000) }}")},
        std::pair{"center bomb", std::string("{{ 'x'.center(10**10) }}")},
        std::pair{"format bomb", std::string("{{ '%1000000000d' % 1 }}")},
        std::pair{"format bomb of fields", std::string("{{ ('%(a)99999s' * 5000) % {'a': 1} }}")},
        std::pair{"power bomb", std::string("{{ 9**9**9 }}")},
        std::pair{"indent bomb", std::string("{{ ('\\n' * 1000000)|indent(10000, true, true) }}")},
        std::pair{"many strings", std::string("{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = "
                                              "ns.l + ['x' * 100000] %}{% endfor %}")},
        std::pair{"shared lists", std::string("{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = "
                                              "[ns.l, ns.l] %}{% endfor %}{{ ns.l }}")},
        std::pair{"shared lists compared", std::string("{% set a = namespace(l=[1]) %}{% set b = namespace(l=[1]) %}{% "
                                                       "for i in range(60) %}{% set a.l = [a.l, a.l] %}"
                                                       "{% set b.l = [b.l, b.l] %}{% endfor %}{{ a.l == b.l }}")},
        std::pair{"indented JSON", std::string("{% set ns = namespace(l=range(99999)|list) %}{% for i in range(150) "
                                               "%}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l|tojson(indent=64) }}")},
        std::pair{"long needle", std::string("{{ ('a' * 4000000).find('a' * 2000000 ~ 'b') }}")},
        std::pair{"long needle in", std::string("{{ ('a' * 2000000 ~ 'b') in ('a' * 4000000) }}")},
        std::pair{"count in a loop",
                  std::string(
                      "{% set s = 'a' * 8000000 %}{% for i in range(99999) %}{% set n = s.count('b') %}{% endfor %}")},
        std::pair{"keys in a loop", std::string("{% set s = 'a' * 8000000 %}{% set d = {} %}{% for i in range(99999) "
                                                "%}{% set n = d[s] %}{% endfor %}")},
        std::pair{"from_json bomb", std::string("{{ ('[' ~ '[],' * 999999 ~ '1]')|from_json }}")},
        std::pair{"deep lists",
                  std::string(
                      "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = [ns.l] %}{% endfor %}")},
        std::pair{"deep namespaces", std::string("{% set ns = namespace(l=0) %}{% for i in range(99999) %}{% set ns.l "
                                                 "= namespace(l=ns.l) %}{% endfor %}")},
        std::pair{"deep expression", "{{ " + repeated("(", 5000) + "1" + repeated(")", 5000) + " }}"},
        std::pair{"deep unary", "{{ " + repeated("-", 100000) + "1 }}"},
        std::pair{"deep not", "{{ " + repeated("not ", 100000) + "1 }}"},
        std::pair{"long sum", "{{ 1" + repeated("+1", 100000) + " }}"},
        std::pair{"long filters", "{{ 1" + repeated("|abs", 100000) + " }}"},
        std::pair{"long attributes", "{{ a" + repeated(".b", 100000) + " }}"},
        std::pair{"deep blocks", repeated("{% if 1 %}", 20000)},
        std::pair{"deep for", repeated("{% for i in [1] %}", 20000)}, std::pair{"unclosed", repeated("{", 500000)},
        std::pair{"huge source", std::string(2 << 20, 'x')},
        std::pair{"include", std::string("{% include '/etc/passwd' %}")},
        std::pair{"import", std::string("{% import '/etc/passwd' as x %}")},
        std::pair{"from", std::string("{% from '/etc/passwd' import x %}")},
        std::pair{"extends", std::string("{% extends '/etc/passwd' %}")},
        std::pair{"append", std::string("{{ [].append(1) }}")},
        std::pair{"update", std::string("{{ {}.update({'a': 1}) }}")},
        std::pair{"set on a dict", std::string("{% set d = {} %}{% set d.x = 1 %}")}));

// Not refused, but with numbers that a loop must not count up to, and long texts that must not be copied a word at a
// time.
TEST(JinjaLimits, OddArgumentsEnd) {
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(Template("{{ 'abc'|truncate(9000000000000000000, true, '...', -9000000000000000000) }}").render({}).bytes(),
            "abc...");
  EXPECT_EQ(Template("{{ 'abc'|truncate(9223372036854775807) }}").render({}).bytes(), "abc");
  EXPECT_EQ(Template("{{ ('a ' * 200000).rsplit(none, 999999)|length }}").render({}).bytes(), "200000");
  EXPECT_EQ(Template("{{ '  a  b c '.rsplit(none, 1)|tojson }}").render({}).bytes(), R"(["  a  b", "c"])");
  EXPECT_EQ(Template("{{ '  a '.rsplit(none, 0)|tojson }}{{ '   '.rsplit(none, 2)|tojson }}").render({}).bytes(),
            R"(["  a"][])");
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(), 5.0);
}

TEST(JinjaLimits, MemoryStaysFlat) {
  const auto peak = [] {
    rusage u{};
    getrusage(RUSAGE_SELF, &u);
    return u.ru_maxrss;  // KiB
  };
  const auto before = peak();
  for (int k = 0; k < 5; ++k) {
    complaint_of(
        "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = ns.l + ['x' * 100000] %}{% endfor %}");
    complaint_of(
        "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = ns.l + [namespace(s='x' * 1000)] %}{% "
        "endfor %}");
    complaint_of("{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}");
    complaint_of("{% for i in range(100000) %}{{ 'x' * 100 }}{% endfor %}");
  }
#if !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)  // which keep what is freed and notes of what was touched
  EXPECT_LT(peak() - before, 200 * 1024);
#else
  EXPECT_GE(peak(), before);
#endif
}

TEST(JinjaLimits, ReferencesInCirclesAreFreed) {  // the address sanitizer finds what is not
  EXPECT_EQ(complaint_of(
                "{% set ns = namespace() %}{% set ns.me = ns %}{% macro m() %}{{ ns }}{% endmacro %}{% set ns.m = m %}"
                "{% for i in [1] %}{% macro k() %}{{ i }}{% endmacro %}{% set ns.k = k %}{% set ns.loop = loop %}{% "
                "endfor %}"),
            "");
}

}  // namespace
}  // namespace birkhoff::text::chat::jinja
