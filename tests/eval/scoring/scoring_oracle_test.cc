// What lm-evaluation-harness 0.4.13 says of predictions, beside what is said here.
#include <gtest/gtest.h>

#include <fstream>

#include "eval/scoring/score_lines.h"
#include "eval/scoring/task_rules.h"
#include "support/golden.h"
#include "text/jinja/json_value.h"

namespace birkhoff::eval {
namespace {

using nlohmann::json;

std::vector<json> oracle_lines(const std::string& file) {
  std::ifstream in(test::golden_dir() + "/eval/" + file);
  std::vector<json> out;
  for (std::string line; std::getline(in, line);) out.push_back(json::parse(line));
  return out;
}

// A line without what is to be found, with the prompt where the harness takes it from the document.
json question_of(json line) {
  if (line.contains("task") && line["task"] == "humaneval") {
    const std::string program = line["filters"]["create_test"]["extracted"][0], answer = line["prediction"];
    line["references"] = {{"prompt", program.substr(0, program.size() - answer.size())}, {"test", line["references"]}};
  }
  for (const char* found : {"filters", "output", "raises"}) line.erase(found);
  return line;
}

void expect_same(const json& want, json got) {
  if (want.contains("function")) {
    EXPECT_EQ(want, got) << want.dump();
    return;
  }
  ASSERT_TRUE(got.contains("filters")) << got.dump();
  for (const auto& [filter, judged] : want["filters"].items())
    for (const auto& [name, value] : judged.items()) {
      if (name == "math_verify") continue;  // of another package
      EXPECT_EQ(got["filters"][filter][name], value) << want.dump();
    }
  EXPECT_EQ(got["filters"].size(), want["filters"].size());
}

TEST(ScoringOracle, EveryLine) {
  const std::vector<json> lines = oracle_lines("scoring.jsonl");
  if (lines.empty()) GTEST_SKIP() << "no eval/scoring.jsonl: BIRKHOFF_ORACLE names the reference data";
  std::map<std::string, Scoring> rules;
  const auto find = [&](const std::string& task) -> const Scoring& {
    return rules.try_emplace(task, test::rules_of(task)).first->second;
  };
  int64_t number = 0;
  for (const json& want : lines) {
    // Programs are not run here: what the harness found is taken for it.
    const auto run = [&](const std::string& program) {
      const auto& judged = want["filters"].begin().value();
      EXPECT_TRUE(program.ends_with("\n" + want["references"].get<std::string>()));
      return judged.value(want["task"] == "mbpp" ? "pass_at_1" : "pass@1", 0.) == 1;
    };
    const LineScorer scorer(find, {}, run);
    expect_same(want, json::parse(scorer.score(question_of(want).dump(), ++number)));
  }
}

TEST(ScoringOracle, GeneratedAnswers) {
  int judged = 0;
  for (const char* file :
       {"bbh.jsonl", "gsm8k_5shot.jsonl", "gsm8k_cot_8shot.jsonl", "nq_open_5shot.jsonl", "triviaqa_5shot.jsonl"})
    for (const json& line : oracle_lines(file)) {
      const Scoring scoring = test::rules_of(line["task"]);
      for (const Judgement& j : scoring.judge(text::chat::parse_json(line["target"].dump()), line["generated"])) {
        EXPECT_EQ(line["filtered"][j.filter][0], j.extracted) << line["generated"];
        EXPECT_EQ(line["scores"][j.filter]["exact_match"], j.metrics.at(0).second);
      }
      ++judged;
    }
  if (judged == 0) GTEST_SKIP() << "no eval/bbh.jsonl: BIRKHOFF_ORACLE names the reference data";
}

TEST(ScoringOracle, ChosenAnswers) {
  int judged = 0;
  for (const char* file :
       {"mmlu_5shot.jsonl", "hellaswag_10shot.jsonl", "piqa_0shot.jsonl", "arc_challenge_0shot.jsonl"})
    for (const json& line : oracle_lines(file)) {
      std::vector<std::string> choices;
      for (const std::string c : line["continuations"]) choices.push_back(c.substr(1));
      const std::vector<double> lls = line["loglikelihood"];
      const json& scores = line["scores"]["none"];
      const Scoring scoring = test::rules_of(scores.contains("acc_norm") ? "hellaswag" : "mmlu");
      const int64_t gold =
          line["target"].is_string() ? std::stoll(line["target"].get<std::string>()) : line["target"].get<int64_t>();
      for (const auto& [name, value] : scoring.judge_choices(lls, choices, gold))
        EXPECT_EQ(scores[name], value) << line["doc_id"];
      ++judged;
    }
  if (judged == 0) GTEST_SKIP() << "no eval/mmlu_5shot.jsonl: BIRKHOFF_ORACLE names the reference data";
}

}  // namespace
}  // namespace birkhoff::eval
