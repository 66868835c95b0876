// Every context that lm-evaluation-harness 0.4.13 made (oracle/eval), byte for byte.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>

#include "core/error.h"
#include "eval/tasks/task.h"
#include "support/golden.h"
#include "text/chat/chat_data.h"

namespace birkhoff::eval {
namespace {

using text::chat::Kind;
using text::chat::Value;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// The local data, and the sample of ARC that comes with the oracle.
class HarnessData {
 public:
  HarnessData() : path_(std::filesystem::temp_directory_path() / ("eval_data_" + std::to_string(getpid()))) {
    std::filesystem::create_directories(path_ / "arc_challenge");
    for (const auto& e : std::filesystem::directory_iterator(environment("BIRKHOFF_DATA") + "/eval"))
      std::filesystem::create_symlink(e.path(), path_ / e.path().filename());
    for (const char* name : {"test.jsonl", "train.jsonl"})
      std::filesystem::create_symlink(environment("BIRKHOFF_ORACLE") + "/eval/arc_sample.jsonl",
                                      path_ / "arc_challenge" / name);
  }
  ~HarnessData() { std::filesystem::remove_all(path_); }
  std::string path() const { return path_; }

 private:
  std::filesystem::path path_;
};

void expect_question(const Value& golden, const Task& task, const Question& q) {
  const std::string place = task.name + " " + std::to_string(q.doc_id);
  EXPECT_EQ(q.context, get(golden, "context").bytes()) << place;
  EXPECT_EQ(prompt_hash(q.context), get(golden, "prompt_hash").bytes()) << place;
  EXPECT_EQ(document_hash(q.document), get(golden, "doc_hash").bytes()) << place;
  EXPECT_EQ(task.shots, get(golden, "num_fewshot").as_int()) << place;
  EXPECT_EQ(std::stod(task.version), get(golden, "version").as_real()) << place;
  if (const Value rows = get(golden, "fewshot_rows"); rows.is(Kind::list)) {
    std::vector<int64_t> expected;
    for (const Value& row : rows.items()) expected.push_back(row.as_int());
    EXPECT_EQ(q.shots, expected) << place;
  }
  if (const Value continuations = get(golden, "continuations"); continuations.is(Kind::list)) {
    std::vector<std::string> expected;
    for (const Value& c : continuations.items()) expected.push_back(c.bytes());
    EXPECT_EQ(q.continuations, expected) << place;
    EXPECT_EQ(q.gold, get(golden, "target").as_int()) << place;
  } else {
    EXPECT_TRUE(task.generates()) << place;
    std::vector<std::string> until;
    for (const Value& u : get(golden, "until").items()) until.push_back(u.bytes());
    EXPECT_EQ(task.until, until) << place;
  }
}

// file, what is asked for, few-shot examples (-1: the task's own)
struct GoldenRun {
  const char* file;
  const char* name;
  int shots;
};
void PrintTo(const GoldenRun& r, std::ostream* out) { *out << r.file; }

class HarnessGolden : public testing::TestWithParam<GoldenRun> {};

TEST_P(HarnessGolden, ContextsAreThoseOfTheHarness) {
  if (environment("BIRKHOFF_ORACLE").empty() || environment("BIRKHOFF_DATA").empty())
    GTEST_SKIP() << "BIRKHOFF_ORACLE and BIRKHOFF_DATA name no reference data";
  const GoldenRun run = GetParam();
  const HarnessData data;
  TaskOptions options;
  options.data_dir = data.path();
  if (run.shots >= 0) options.shots = run.shots;
  const TaskSet set = open_tasks({run.name}, options);
  std::map<std::string, std::vector<Value>> expected;
  for (const Value& row : test::json_lines(environment("BIRKHOFF_ORACLE") + "/eval/" + run.file + ".jsonl"))
    expected[get(row, "task").bytes()].push_back(row);
  EXPECT_EQ(set.tasks.size(), expected.size());
  for (const Task& task : set.tasks) {
    Selection selection;
    const std::vector<Value>& rows = expected.at(task.name);
    selection.limit = static_cast<double>(rows.size());
    const std::vector<Question> questions = task.questions(selection);
    ASSERT_EQ(questions.size(), rows.size());
    for (size_t i = 0; i < rows.size(); ++i) {
      ASSERT_EQ(questions[i].doc_id, get(rows[i], "doc_id").as_int());
      expect_question(rows[i], task, questions[i]);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Files, HarnessGolden,
    testing::Values(GoldenRun{"mmlu_5shot", "mmlu", 5}, GoldenRun{"mmlu_0shot", "mmlu", 0},
                    GoldenRun{"hellaswag_10shot", "hellaswag", 10}, GoldenRun{"hellaswag_0shot", "hellaswag", 0},
                    GoldenRun{"piqa_0shot", "piqa", 0}, GoldenRun{"piqa_5shot", "piqa", 5},
                    GoldenRun{"arc_challenge_0shot", "arc_challenge", 0}, GoldenRun{"bbh", "bbh_cot_fewshot", -1},
                    GoldenRun{"drop_0shot", "drop", 0}, GoldenRun{"drop_3shot", "drop", 3},
                    GoldenRun{"gsm8k_5shot", "gsm8k", -1}, GoldenRun{"gsm8k_cot_8shot", "gsm8k_cot", -1},
                    GoldenRun{"hendrycks_math_0shot", "hendrycks_math", 0},
                    GoldenRun{"minerva_math_4shot", "minerva_math", -1}, GoldenRun{"nq_open_5shot", "nq_open", 5},
                    GoldenRun{"triviaqa_5shot", "triviaqa", 5}, GoldenRun{"humaneval_0shot", "humaneval", -1},
                    GoldenRun{"mbpp_3shot", "mbpp", -1}),
    [](const auto& run) { return std::string(run.param.file); });

}  // namespace
}  // namespace birkhoff::eval
