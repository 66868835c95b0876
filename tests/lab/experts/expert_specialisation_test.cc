// What is counted over domains: loads, documents, telling tokens, information. The first layer of the V4 model looks
// its experts up in a table, so what it must give follows from the text alone.
#include "lab/experts/expert_specialisation.h"

#include <cmath>
#include <map>
#include <set>

#include "lab/experts/expert_models.h"
#include "lab/experts/expert_report.h"

namespace birkhoff::test {
namespace {

using lab::Domain;
using lab::Specialisation;
using lab::SpecialisationOptions;

// As SmallModel fills the table of 8 experts, 3 a token.
std::set<int64_t> table_row(int64_t id) { return {22 * id % 8, (22 * id + 7) % 8, (22 * id + 14) % 8}; }

struct Fixture {
  TempDir dir;
  std::unique_ptr<infer::Engine> engine;
  explicit Fixture(const model::ModelConfig& c = wide_v4_config()) {
    write_model(dir / "m", c);
    engine = std::make_unique<infer::Engine>(dir / "m", fp32());
  }
  Specialisation run(const std::vector<Domain>& domains, int64_t unit_tokens = 4096, int64_t min_count = 1) const {
    SpecialisationOptions o;
    o.seq_len = 32, o.unit_tokens = unit_tokens, o.min_count = min_count, o.telling = 300, o.shuffles = 20;
    return lab::specialisation(*engine, domains, o);
  }
};

TEST(ExpertSpecialisation, InformationOfATable) {
  const Fixture f;
  const auto path = [&](char c) { return f.dir.file(std::string("only_") + c, std::string(100, c)); };
  // a: experts 4 5 6, b: 2 3 4, c: 0 1 2.
  const Specialisation apart = f.run({{"a", {path('a')}}, {"c", {path('c')}}}),
                       touching = f.run({{"a", {path('a')}}, {"b", {path('b')}}}),
                       same = f.run({{"a", {path('a')}}, {"again", {path('a')}}});
  ASSERT_EQ(apart.layers.size(), 3u);
  EXPECT_TRUE(apart.layers[0].hashed);
  EXPECT_FALSE(apart.layers[1].hashed);
  EXPECT_NEAR(apart.layers[0].bits, 1, 1e-14);
  EXPECT_NEAR(touching.layers[0].bits, 2.0 / 3, 1e-14);  // four of six choices tell, the shared expert does not
  for (const auto& l : same.layers) EXPECT_NEAR(l.bits, 0, 1e-14);
  const std::vector<double> a = {0, 0, 0, 0, 8.0 / 3, 8.0 / 3, 8.0 / 3, 0};
  for (size_t e = 0; e < 8; ++e) EXPECT_NEAR(apart.layers[0].load[0][e], a[e], 1e-14) << e;
}

TEST(ExpertSpecialisation, TellingTokensOfATable) {
  const Fixture f;
  std::string first, second;
  for (int i = 0; i < 161; ++i)
    first += "aab"[i % 3], second += "bccd"[i % 4];  // 160 tokens each, the last byte is only a label
  const Specialisation s = f.run({{"first", {f.dir.file("first", first)}}, {"second", {f.dir.file("second", second)}}});
  std::map<int64_t, double> p;
  std::map<int64_t, int64_t> count;
  for (int i = 0; i < 160; ++i)
    for (const std::string* text : {&first, &second})
      p[(*text)[static_cast<size_t>(i)]] += 1.0 / 320, ++count[(*text)[static_cast<size_t>(i)]];
  for (int64_t e = 0; e < 8; ++e) {
    double of_expert = 0;
    std::set<int64_t> want, got;
    for (const auto& [id, probability] : p)
      if (table_row(id).count(e)) want.insert(id), of_expert += probability;
    for (const auto& t : s.layers[0].telling[static_cast<size_t>(e)]) {
      got.insert(t.id);
      EXPECT_NEAR(t.bits, -std::log2(of_expert), 1e-12) << e;  // p(t|e) = p(t) / the share of the expert's tokens
      EXPECT_EQ(t.count, count[t.id]);
    }
    EXPECT_EQ(got, want) << e;
  }
  const Specialisation often =
      f.run({{"first", {f.dir.path() + "/first"}}, {"second", {f.dir.path() + "/second"}}}, 4096, 100);
  for (const auto& list : often.layers[0].telling)
    for (const auto& t : list) EXPECT_TRUE(t.id == 'a') << t.id;  // 107 times; b comes 93 times
}

TEST(ExpertSpecialisation, DomainsOfDifferentSizesWeighTheSame) {
  const Fixture f;
  const std::string a = f.dir.file("a", std::string(33, 'a')), many = f.dir.file("many", std::string(3300, 'c'));
  const Specialisation s = f.run({{"a", {a}}, {"c", {many}}});
  EXPECT_EQ(s.domains[0].tokens, 32);
  EXPECT_EQ(s.domains[1].tokens, 103 * 32);
  EXPECT_NEAR(s.layers[0].bits, 1, 1e-14);
  EXPECT_NEAR(s.layers[0].telling[5][0].bits, 1, 1e-12);  // half of the weight is a's
}

TEST(ExpertSpecialisation, DocumentsAndTheirParts) {
  const Fixture f;
  f.dir.file("docs/1", std::string(40, 'x'));  // ends in the second window
  f.dir.file("docs/2", std::string(24, 'y'));  // ends with it
  f.dir.file("docs/3", std::string(200, 'z'));
  const std::string long_one = f.dir.file("long", std::string(32 * 7 + 1, 'q'));
  const Specialisation s = f.run({{"docs", {f.dir / "docs"}}, {"long", {long_one, long_one}}}, 64);
  EXPECT_EQ(s.domains[0].documents, 3);
  EXPECT_EQ(s.domains[0].tokens, 256);       // 264 bytes are 8 windows
  EXPECT_EQ(s.domains[0].units, 1 + 1 + 3);  // 192 tokens of the third, in parts of 64
  EXPECT_EQ(s.domains[1].documents, 2);
  EXPECT_EQ(s.domains[1].units, 2 * 4);  // 7 windows: 2, 2, 2, 1
}

TEST(ExpertSpecialisation, RoutedLayersCountEveryChoice) {
  for (const auto& [name, config] : router_configs()) {
    const Fixture f(config);
    const Specialisation s =
        f.run({{"a", {f.dir.file("a", random_text(1000, 1))}}, {"b", {f.dir.file("b", random_text(700, 2))}}}, 64);
    for (const auto& l : s.layers) {
      for (const auto& row : l.load) {
        double sum = 0;
        for (const double v : row) sum += v;
        EXPECT_NEAR(sum, 8, 1e-12) << name;
      }
      int64_t choices = 0;
      for (const auto& list : l.telling)
        for (const auto& t : list) choices += t.count;
      EXPECT_EQ(choices, 3 * (s.domains[0].tokens + s.domains[1].tokens)) << name;
      // Random bytes have no domains: what there is lies within what shuffles give.
      EXPECT_GE(l.shuffled.max, l.bits) << name << " layer " << l.layer;
    }
  }
}

TEST(ExpertSpecialisation, Refuses) {
  model::ModelConfig dense = router_configs()[0].config;
  dense.n_routed_experts = 0, dense.n_shared_experts = 0, dense.moe_intermediate_size = 0,
  dense.first_k_dense_replace = 0;
  const Fixture f(dense);
  const std::string path = f.dir.file("text", random_text(200));
  expect_error([&] { f.run({{"a", {path}}, {"b", {path}}}); }, {"no experts", "n_routed_experts 0"});
  const Fixture moe;
  const std::string chat = moe.dir.file("chat.jsonl", R"({"messages": [{"role": "user", "content": "hello"}]})");
  expect_error([&] { moe.run({{"a", {chat}}, {"b", {chat}}}); }, {"chat.jsonl", "conversations"});
  for (const auto* bad : {"plain.txt", "=path", "name="})
    expect_error([&] { lab::parse_domains({"a=b", bad}); }, {bad, "NAME=PATH"}, ExitCode::usage);
  expect_error([&] { lab::parse_domains({"a=b", "a=c"}); }, {"one domain", "\"a\""}, ExitCode::usage);
}

TEST(ExpertSpecialisation, NamesWithSeveralPaths) {
  const auto d = lab::parse_domains({"code=src=old", "prose=p", "code=more"});
  ASSERT_EQ(d.size(), 2u);
  EXPECT_EQ(d[0].name, "code");
  EXPECT_EQ(d[0].paths, (std::vector<std::string>{"src=old", "more"}));
  EXPECT_EQ(d[1].name, "prose");
}

TEST(ExpertSpecialisation, TokensCanBeRead) {
  const Fixture f;
  const infer::TextModel text(*f.engine);
  EXPECT_EQ(lab::readable_token(text, 'a'), "a");
  EXPECT_EQ(lab::readable_token(text, ' '), "\u2423");
  EXPECT_EQ(lab::readable_token(text, '\n'), "\u21B5");
  EXPECT_EQ(lab::readable_token(text, 0), "\\x00");
  EXPECT_EQ(lab::readable_token(text, 0xEA), "\\xEA");
}

}  // namespace
}  // namespace birkhoff::test
