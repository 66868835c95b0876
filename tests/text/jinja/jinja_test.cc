// Templates against Jinja2 itself: tests/golden/chat/jinja.jsonl holds templates, one context and what Jinja2 3.1.6
// made of them in the environment that transformers uses.
#include "text/jinja/jinja.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "support/golden.h"
#include "text/chat/chat_data.h"
#include "text/jinja/python_print.h"

namespace birkhoff::text::chat::jinja {
namespace {

using test::json_lines;

std::string render(const std::string& source, const DictObject& context = {}) {
  return Template(source).render(context).bytes();
}

TEST(Jinja, RendersWhatJinja2Renders) {
  const auto lines = json_lines(test::committed_dir() + "/chat/jinja.jsonl");
  const Value context = get(lines[0], "context");
  ASSERT_GT(lines.size(), 200u);
  for (size_t i = 1; i < lines.size(); ++i) {
    const std::string source = get(lines[i], "template").bytes();
    const Value expected = get(lines[i], "output");
    std::string got, complaint;
    try {
      got = render(source, context.as_dict());
    } catch (const Error& e) {
      complaint = e.what();
    }
    if (expected.is(Kind::string)) {
      EXPECT_EQ(complaint, "") << source;
      EXPECT_EQ(got, expected.bytes()) << source;
    } else {
      EXPECT_NE(complaint, "") << source << "\nJinja2: " << get(lines[i], "error").bytes() << "\ngot: " << got;
    }
  }
}

TEST(Jinja, GenerationBlocksRenderTheirBody) {
  EXPECT_EQ(render("a{% generation %}b{% set x = 1 %}{% endgeneration %}c{{ x is defined }}"), "abcFalse");
}

TEST(Jinja, StrftimeSeesTheTimeItIsGiven) {
  const Template t("{{ strftime_now('%Y-%m-%d') }} {{ strftime_now('%d %b %Y') }}");
  std::tm noon{};
  noon.tm_year = 124, noon.tm_mon = 6, noon.tm_mday = 26, noon.tm_hour = 12, noon.tm_isdst = -1;
  EXPECT_EQ(t.render({}, {}, std::mktime(&noon)).bytes(), "2024-07-26 26 Jul 2024");
}

TEST(Jinja, ErrorsNameTheLine) {
  for (const auto& [source, line] : {std::pair{"a\n\n{{ x.y }}", "line 3"},
                                     {"a\n{% if %}", "line 2"},
                                     {"{% for i in [1] %}\n{{ i }}\n{% nope %}", "line 3"}}) {
    try {
      render(source);
      ADD_FAILURE() << source;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(line), std::string::npos) << e.what();
    }
  }
}

TEST(Jinja, MarksFollowTheContentsOfMessages) {
  DictObject context;
  context.set("c", Value::string("<x>Hi ü</x>", true));
  const auto marked = [&](const std::string& source) {
    std::string out;
    for (const Span& s : Template(source).render(context).spans()) out += s.from_content ? "[" + s.text + "]" : s.text;
    return out;
  };
  EXPECT_EQ(marked("<x>{{ c }}</x>"), "<x>[<x>Hi ü</x>]</x>");
  EXPECT_EQ(marked("{{ '<u>' + c + '<a>' }}"), "<u>[<x>Hi ü</x>]<a>");
  EXPECT_EQ(marked("{{ c | upper }}{{ c[3:5] }}{{ c.replace('Hi', '<s>') }}"), "[<X>HI Ü</X>Hi<x>]<s>[ ü</x>]");
  EXPECT_EQ(marked("{{ {'k': c} | tojson }}"), "{\"k\": \"[<x>Hi ü</x>]\"}");
  EXPECT_EQ(marked("{{ c.split('>')[1] ~ '|' ~ c|trim|length }}"), "[Hi ü</x]|11");
  EXPECT_EQ(marked("{% set t %}<b>{{ c[:3] }}{% endset %}{{ t }}{{ '%s!' % c[3:] }}"), "<b>[<x>Hi ü</x>]!");
  EXPECT_EQ(marked("{% for p in c.split('i') %}<s>{{ p }}{% endfor %}"), "<s>[<x>H]<s>[ ü</x>]");
}

}  // namespace
}  // namespace birkhoff::text::chat::jinja
