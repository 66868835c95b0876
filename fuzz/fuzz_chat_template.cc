// Chat templates: the source is mutated, the conversation is fixed.
#include "fuzz/mutate.h"
#include "text/jinja/jinja.h"
#include "text/jinja/json_value.h"

int main(int argc, char** argv) {
  using namespace birkhoff;
  using namespace birkhoff::text::chat;
  const Value context = parse_json(
      R"({"messages": [{"role": "system", "content": "Be brief. ü"}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": null,
          "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1, "b": [1.5, null]}}}]}], "tools": null, "add_generation_prompt": true,
          "bos_token": "<s>", "n": 7, "s": "Hello, World", "l": [3, 1, 2], "d": {"k": "v"}})",
      true);
  fuzz::Target t;
  t.name = "chat_template";
  t.seeds = {
      "{% set ns = namespace(first=true, text='') %}{%- for m in messages -%}{% if m['role'] == 'system' %}{% set "
      "ns.text = ns.text + m['content'] %}"
      "{% elif m.role == 'user' -%}<u>{{ m.content | trim }}\n{% else %}{{ m['tool_calls'] | tojson(indent=2) }}{% "
      "endif %}{% endfor %}{{ bos_token }}{{ ns.text }}"
      "{% if add_generation_prompt %}{{ '<a>' }}{% endif %}",
      "{% macro show(x, deep=1) %}{{ x }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ show(1, 2, 3, k=n) }}{% macro m(x, "
      "y='z') %}[{{ x ~ y }}]{{ caller() if caller }}{% endmacro %}{% call m(n) %}in{% endcall %}{{ m(1, y=2) }}",
      "{{ s[1:-1:2] }} {{ s[::-1] }} {{ l|sort|map('string')|join(',') }} {{ d.items()|list }} {{ '%s-%05.2f' % (s, "
      "2.5) }} {{ '{:>8}|{0}'.format(s) if false }}",
      "{% for i in range(5) if i is odd %}{{ loop.index }}{{ loop.cycle('a', 'b') }}{% if loop.last %}{% break %}{% "
      "endif %}{% else %}none{% endfor %}",
      "{% for m in messages recursive %}{{ m.role }}{{ loop([]) }}{% endfor %}{% with a = 1, b = l %}{{ a + b|length "
      "}}{% endwith %}{% filter upper %}x{% endfilter %}",
      "  {# c #}\n  {%- raw %}{{ x }}{% endraw -%}\n{% set t | indent(2) %}a\nb{% endset %}{{ t }}{{ 'a' 'b' "
      "\"\\u00e9\\n\" }}{{ 1e-7 + 2**10 // 3 % 4 }}",
      "{{ l|batch(2, 0)|list }}{{ messages|selectattr('content')|map(attribute='role')|list }}{{ "
      "messages|groupby('role') }}{{ d|dictsort }}{{ s|replace('l', 'L')|title }}",
      "{% if not (n > 3 and s is string) or 'H' in s %}{{ s.split(',', 1)[1].strip() }}{% endif %}{{ [1, 2.0, none, "
      "true, {'a': (1,)}] }}{% generation %}{{ n }}{% endgeneration %}"};
  t.dictionary = {"{{",
                  "}}",
                  "{%",
                  "%}",
                  "{#",
                  "#}",
                  "-%}",
                  "{%-",
                  "{%+",
                  "endfor",
                  "endif",
                  "endmacro",
                  "endset",
                  "endraw",
                  "loop",
                  "loop.",
                  "range(99999)",
                  "* 99999",
                  "|tojson",
                  "|list",
                  "|join",
                  "|indent(9999)",
                  "|replace('', s)",
                  "[::-1]",
                  "[0:99]",
                  " is ",
                  " in ",
                  " not ",
                  " if ",
                  " else ",
                  "namespace(",
                  "ns.x",
                  "caller()",
                  "varargs",
                  "__class__",
                  ".append(1)",
                  "(((",
                  ")))",
                  "[[[",
                  "{{{",
                  "'%9999d' % n",
                  ".format(",
                  "{0.a[b]}",
                  "\\u",
                  "\\x",
                  "1e999",
                  "9223372036854775807",
                  "**",
                  "//",
                  "~"};
  t.run = [&](const std::string& input) {
    jinja::Limits limits;
    limits.steps = 300'000;  // the run is about crashes; the full limit takes longer under sanitizers than an input may
    limits.output_bytes = 1 << 20;
    limits.live_bytes = 8 << 20;
    jinja::Template(input).render(context.as_dict(), limits, 0);
  };
  return fuzz::run(argc, argv, t);
}
