// Prompts of DeepSeek's published evaluation (DeepSeek-Math, DeepSeek-Coder), put together here from its prompt files
// as its programs do.
#include <gtest/gtest.h>

#include <cstdlib>

#include "eval/tasks/task_data.h"
#include "text/chat/chat_data.h"

namespace birkhoff::eval {
namespace {

using text::chat::Value;

class PaperPrompts : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::getenv("BIRKHOFF_DATA")) GTEST_SKIP() << "BIRKHOFF_DATA names no data";
    options_.data_dir = std::string(std::getenv("BIRKHOFF_DATA")) + "/eval";
    options_.protocol = "paper";
  }
  std::vector<Value> rows(const std::string& file) const { return test::json_lines(options_.data_dir + "/" + file); }
  std::string prompt(const std::string& name) const {
    std::string text = test::slurp(options_.data_dir + "/prompts/deepseek_math_cot_" + name + "_shot.txt");
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
  }
  std::vector<Question> first(const std::string& task, int n) const {
    Selection s;
    s.limit = n;
    return test::only_task(task, options_).questions(s);
  }
  TaskOptions options_;
};

TEST_F(PaperPrompts, Gsm8k) {
  const auto expected = rows("gsm8k/test.jsonl");
  for (const Question& q : first("gsm8k", 1319))
    ASSERT_EQ(q.context, prompt("gsm_8") +
                             "\n\n\nQ: " + get(expected[static_cast<size_t>(q.doc_id)], "question").bytes() + "\nA:");
}

TEST_F(PaperPrompts, Math) {
  std::vector<Value> expected;
  for (const Value& row : rows("math/test.json"))
    if (get(row, "type").bytes() == "Number Theory") expected.push_back(row);
  for (const Question& q : first("math_num_theory", 540))
    ASSERT_EQ(q.context, prompt("minerva_math_4") + "\n\nProblem:\n" +
                             get(expected[static_cast<size_t>(q.doc_id)], "problem").bytes() + "\n\nSolution:");
}

TEST_F(PaperPrompts, MmluStem) {
  const auto expected = rows("mmlu_stem/test.jsonl");
  for (const Question& q : first("mmlu_stem", 200)) {
    const Value& row = expected[static_cast<size_t>(q.doc_id)];
    const auto stripped = [](std::string s) {
      s.erase(0, s.find_first_not_of(" \t\n"));
      return s.erase(s.find_last_not_of(" \t\n") + 1);
    };
    std::string options;
    for (size_t i = 0; i < 4; ++i)
      options += std::string(i ? ", (" : "(") + "ABCD"[i] + ") " + stripped(get(row, "options").items()[i].bytes());
    ASSERT_EQ(q.context, prompt("mmlu_stem_4") + "\n\nProblem:\n" + stripped(get(row, "question").bytes()) +
                             "\nWhat of the following is the right choice? Explain your answer.\n" + options +
                             "\nSolution:");
  }
}

TEST_F(PaperPrompts, MbppHasNoBlankLinesAndNoCarriageReturns) {
  const Question q = first("mbpp", 1).at(0);
  EXPECT_EQ(q.context.find('\r'), std::string::npos);
  EXPECT_EQ(q.context.find('\t'), std::string::npos);
  EXPECT_NE(q.context.find("[DONE]\nYou are an expert"), std::string::npos);
}

TEST_F(PaperPrompts, OthersAreTheHarnessWithTheCountsOfThePaper) {
  TaskOptions harness = options_;
  harness.protocol = "harness";
  const std::pair<const char*, int> tasks[] = {{"hellaswag", 10}, {"mmlu_virology", 5}, {"piqa", 0}};
  Selection s;
  s.limit = 3;
  for (const auto& [name, shots] : tasks) {
    harness.shots = shots;
    const auto a = test::only_task(name, harness).questions(s), b = test::only_task(name, options_).questions(s);
    for (size_t i = 0; i < 3; ++i) EXPECT_EQ(a[i].context, b[i].context) << name;
  }
}

}  // namespace
}  // namespace birkhoff::eval
