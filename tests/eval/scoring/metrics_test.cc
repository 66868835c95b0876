#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
#include "eval/scoring/drop_f1.h"
#include "eval/scoring/hendrycks_math.h"
#include "eval/scoring/minerva_math.h"
#include "eval/scoring/program.h"
#include "eval/scoring/python.h"
#include "eval/scoring/score_lines.h"
#include "eval/scoring/task_rules.h"
#include "text/jinja/json_value.h"

namespace birkhoff::eval {
namespace {

using text::chat::parse_json;

double score(const std::string& task, const std::string& references, const std::string& prediction, size_t filter = 0) {
  return test::rules_of(task).judge(parse_json(references), prediction).at(filter).metrics.back().second;
}
std::string extracted(const std::string& task, const std::string& prediction, size_t filter = 0) {
  return test::rules_of(task).judge(parse_json("\"x\""), prediction).at(filter).extracted;
}

TEST(Filters, TakeWhatFindallFinds) {
  EXPECT_EQ(extracted("gsm8k", "#### 1,0 #### 2"), "1,0");
  EXPECT_EQ(extracted("gsm8k", "####1"), "[invalid]");
  EXPECT_EQ(extracted("gsm8k", "1 and -2.", 1), "-2.");
  EXPECT_EQ(extracted("gsm8k_cot", "The answer is 18"), "1") << "the last character stands for the full stop";
  EXPECT_EQ(extracted("bbh_cot_fewshot_x", "so the answer is (A)\nthe answer is b."), "(A");
}

TEST(ExactMatch, DeletesBeforeItCompares) {
  EXPECT_EQ(score("gsm8k", R"("9*2 = 18\n#### 1,800")", "#### $1800", 1), 1);
  EXPECT_EQ(score("gsm8k", R"("#### 18")", "#### 18.0"), 0) << "no comparison of numbers";
  EXPECT_EQ(score("nq_open", R"(["X", "The Beatles"])", " beatles! "), 1);
  EXPECT_EQ(score("nq_open", R"(["The Beatles"])", "Bethe Beatles"), 0) << "articles are whole words";
  EXPECT_EQ(score("triviaqa", R"(["The Beatles"])", "Beatles"), 0);
  EXPECT_EQ(score("triviaqa", "[]", ""), 0);
}

TEST(DropF1, Normalizes) {
  const std::pair<const char*, const char*> cases[] = {{"The 1,000-yard  A.D. an", "1000.0 yard ad"},
                                                       {"1e-5", "1e 5.0"},
                                                       {"1.2.3", "123.0"},
                                                       {"1e400", "inf"},
                                                       {"\u0665", "5.0"},
                                                       {"\u00bd", "\u00bd"},
                                                       {"1_0", "10.0"},
                                                       {"\u00a05\x1c", "5"},
                                                       {"Theatre", "theatre"},
                                                       {"x\u00a0y", "x y"}};
  for (const auto& [given, wanted] : cases) EXPECT_EQ(drop_normalize(given), wanted) << given;
}

TEST(DropF1, OnePredictionCountsForOneSpan) {
  EXPECT_EQ(drop_scores("Pakistanis and Filipinos", {"Pakistanis", "Filipinos"}), std::pair(0., 0.25));
  EXPECT_EQ(drop_scores("5 yards", {"7 yards"}), std::pair(0., 0.)) << "another number";
  EXPECT_EQ(drop_scores("x", {"x y z"}), std::pair(0., 0.5));
  EXPECT_EQ(score("drop", R"([[" "], ["x y z"]])", "x"), 0.5);
}

TEST(HendrycksMath, Strips) {
  EXPECT_EQ(hendrycks_strip_string("x = \\dfrac12"), "\\frac{1}{2}");
  EXPECT_EQ(hendrycks_strip_string("kkk=.5\\text{ cm}"), "kkk=.5");
  EXPECT_EQ(hendrycks_strip_string("-1/2"), "\\frac{-1}{2}");
  EXPECT_THROW(hendrycks_strip_string("a/b"), Raised);
  EXPECT_TRUE(hendrycks_equal("a/b", "a/b")) << "texts are compared where the original raises";
  EXPECT_EQ(score("hendrycks_math_x", R"("so $\\boxed{\\frac{1}{2}}$")", "$a$ hence $0.5$"), 0)
      << "from the first $ to the last";
  EXPECT_EQ(score("hendrycks_math_x", R"("so $\\boxed{\\frac{1}{2}}$")", "hence $0.5$"), 1);
  EXPECT_THROW(score("hendrycks_math_x", R"("nothing")", "1"), Error);
}

TEST(MinervaMath, FindsAndNormalizes) {
  EXPECT_EQ(minerva_answer("Final Answer: The final answer is $3$. I hope it is correct. More"), "$3$");
  EXPECT_EQ(minerva_answer("Final Answer: The final answer is\n3. I hope it is correct."), "[invalidanswer]");
  const std::pair<const char*, const char*> cases[] = {{"2\\pi cm", "2\\pi"},
                                                       {"\\left[2,5\\right)", "\\left[2,5\\right)"},
                                                       {"\\frac12", "\\frac{1}{2}"},
                                                       {"\\sqrt[3]8", "\\sqrt[3]{8}"},
                                                       {"\\sqrt3", "\\sqrt{3}"},
                                                       {"1,234,567", "1234567"},
                                                       {"0,1", "0,1"},
                                                       {"$x=5$ and $y=6$", "6"},
                                                       {"\\text{Monday}", "Monday"},
                                                       {"11,\\text{and}12", "11,12"},
                                                       {"\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"}};
  for (const auto& [given, wanted] : cases) EXPECT_EQ(minerva_normalize(given), wanted) << given;
  EXPECT_EQ(score("minerva_math_x", R"("$\\boxed{\\frac{1}{2}}$")",
                  "Final Answer: The final answer is $0.5$. I hope it is correct."),
            1);
}

TEST(PassAtK, IsTheEstimator) {
  EXPECT_EQ(pass_at_k(1, 1, 1), 1);
  EXPECT_EQ(pass_at_k(1, 0, 1), 0);
  EXPECT_NEAR(pass_at_k(10, 3, 5), 1 - 21. / 252, 1e-15);  // 1 - C(7, 5) / C(10, 5)
  EXPECT_EQ(pass_at_k(10, 6, 5), 1);
}

TEST(Programs, AreRunOnlyWhenAllowed) {
  const Scoring scoring = test::rules_of("humaneval");
  const auto references = parse_json(R"({"prompt": "def f():\n", "test": "assert f() == 1"})");
  std::string ran;
  const auto run = [&](const std::string& program) { return ran = program, true; };
  const Judgement j = scoring.judge(references, "  return 1", run).at(0);
  EXPECT_EQ(ran, "def f():\n  return 1\nassert f() == 1");
  EXPECT_EQ(j.extracted, "def f():\n  return 1");
  EXPECT_EQ(j.metrics, (Metrics{{"pass@1", 1}}));
  EXPECT_THROW(scoring.judge(references, ""), Error);
}

TEST(Choices, FirstOfTheGreatest) {
  const Scoring scoring = Scoring::read(
      nlohmann::json::parse(
          R"({"metrics": [{"name": "acc"}, {"name": "acc_norm"}, {"name": "acc_bytes"}, {"name": "acc_mutual_info"}]})"),
      "t");
  EXPECT_TRUE(scoring.needs_alone());
  const std::vector<std::string> choices{"a", "\u00e9\u00e9"};
  const auto judged = [&](std::vector<double> lls, int64_t gold) {
    std::string right;
    for (const auto& [name, value] : scoring.judge_choices(lls, choices, gold, std::vector<double>{-1, -4}))
      right += value == 1 ? '1' : '0';
    return right;
  };
  EXPECT_EQ(judged({-1, -1}, 0), "1000") << "equal ones: the first; per character and byte the longer one wins";
  EXPECT_EQ(judged({-1, -3}, 1), "0011") << "two code points, four bytes";
  const Scoring norm = test::rules_of("hellaswag");
  EXPECT_EQ(norm.judge_choices(std::vector<double>{-1, 0}, std::vector<std::string>{"a", ""}, 1),
            (Metrics{{"acc", 1}, {"acc_norm", 1}}))
      << "nan wins";
}

TEST(CutAtStops, EachInTurn) {
  EXPECT_EQ(cut_at_stops("a\nb.c", {"", ".", "\n"}), "a");
  EXPECT_EQ(cut_at_stops("a", {"b"}), "a");
}

TEST(ScoringRules, BadOnesAreNamed) {
  const auto message = [](const char* rules) -> std::string {
    try {
      Scoring::read(nlohmann::json::parse(rules), "tasks/x.json");
    } catch (const Error& e) {
      return e.what() + e.hint();
    }
    return "accepted";
  };
  EXPECT_NE(message(R"({"metrics": [{"name": "acc"}, {"name": "drop"}]})").find("chosen or generated"),
            std::string::npos);
  EXPECT_NE(message(R"({"metrics": [{"name": "exact"}]})").find("exact_match"), std::string::npos);
  EXPECT_NE(message(R"({"metrics": [{"name": "exact_match", "ignore": true}]})").find("\"ignore\""), std::string::npos);
  EXPECT_NE(message(R"({"filters": [{"name": "f", "steps": [{"regex": "("}]}], "metrics": [{"name": "drop"}]})")
                .find("regular expression"),
            std::string::npos);
  EXPECT_NE(
      message(R"({"filters": [{"name": "f", "steps": ["upper"]}], "metrics": [{"name": "drop"}]})").find("uppercase"),
      std::string::npos);
  EXPECT_NE(message("{}").find("\"metrics\""), std::string::npos);
}

TEST(ScoreLines, MalformedOnesBecomeErrors) {
  const Scoring drop = test::rules_of("drop");
  const LineScorer scorer([&](const std::string&) -> const Scoring& { return drop; }, {}, {});
  for (const char* line :
       {"", "{", "[]", "{}", R"({"task": "drop"})", R"({"task": "drop", "references": 1, "prediction": "x"})",
        R"({"function": "f", "input": ""})", R"({"function": "cut_at_stops", "input": ""})"}) {
    const nlohmann::json answer = nlohmann::json::parse(scorer.score(line, 7));
    EXPECT_EQ(answer["line"], 7) << line;
    EXPECT_TRUE(answer.contains("error")) << line;
  }
  EXPECT_EQ(
      scorer.score(R"({"task": "drop", "doc_id": 3, "references": [["5"]], "prediction": "5"})", 1),
      R"({"task": "drop", "doc_id": 3, "references": [["5"]], "prediction": "5", "filters": {"none": {"extracted": "5", "em": 1.0, "f1": 1.0}}})");
}

}  // namespace
}  // namespace birkhoff::eval
