// What a trained model answers to the contexts of lm-evaluation-harness's own runs: the tokens, log-likelihoods and
// texts that the harness had of it.
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "eval/task_run.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

using eval::Answered;
using eval::Question;

// "" where it is not set.
std::string reference_folder(const char* variable, const std::string& below) {
  const char* at = std::getenv(variable);
  return at ? std::string(at) + below : "";
}

struct GoldenRuns {
  std::string goldens = reference_folder("BIRKHOFF_ORACLE", "/eval");
  std::string weights = reference_folder("BIRKHOFF_DATA", "/weights/stories260K");
  bool absent() const { return goldens.empty() || weights.empty(); }

  // Lines of all runs, by task.
  std::map<std::string, std::vector<nlohmann::json>> read(bool generated) const {
    std::map<std::string, std::vector<nlohmann::json>> tasks;
    for (const auto& entry : std::filesystem::directory_iterator(goldens)) {
      const std::string name = entry.path().filename();
      if (!name.ends_with(".jsonl") || name == "scoring.jsonl" || name == "arc_sample.jsonl") continue;
      std::ifstream in(entry.path());
      for (std::string line; std::getline(in, line);) {
        nlohmann::json j = nlohmann::json::parse(line);
        if (j.contains("generated") == generated) tasks[name + " " + j.at("task").get<std::string>()].push_back(j);
      }
    }
    return tasks;
  }
};

struct GoldenModel {
  explicit GoldenModel(const GoldenRuns& runs) : engine(runs.weights, options()), text(engine) {}
  static infer::EngineOptions options() {
    infer::EngineOptions o;
    o.compute = "fp32", o.threads = 2, o.caches.prefix_bytes = int64_t{1} << 28;
    return o;
  }
  std::vector<Answered> ask(const eval::Task& task, const std::vector<Question>& questions, eval::AskCounts& counts) {
    TempDir dir;
    eval::AnswerStore store(dir / "answers.jsonl");
    eval::AskOptions o;
    o.max_length = 512, o.model = "stories260K";
    return eval::ask(
        engine, text, task, questions, o, store, counts, [](int64_t) {}, false);
  }
  infer::Engine engine;
  infer::TextModel text;
};

eval::Task golden_task(const nlohmann::json& line) {
  eval::Task t;
  t.name = line.at("task");
  if (line.contains("until")) t.until = line.at("until").get<std::vector<std::string>>();
  t.max_tokens = line.value("max_gen_toks", int64_t{0});
  return t;
}

Question golden_question(const nlohmann::json& line) {
  Question q;
  q.doc_id = line.at("doc_id");
  q.context = line.at("context");
  if (!line.contains("continuations")) return q;
  q.continuations = q.choices = line.at("continuations").get<std::vector<std::string>>();
  return q;
}

TEST(HarnessAnswers, TokensAreThoseOfTheReference) {
  const GoldenRuns runs;
  if (runs.absent()) GTEST_SKIP() << "BIRKHOFF_ORACLE and BIRKHOFF_DATA are not set";
  GoldenModel m(runs);
  const eval::PromptEncoder encoder(m.text, 512), uncut(m.text, 100000);
  int64_t continuations = 0;
  for (const auto& [name, lines] : runs.read(false))
    for (const nlohmann::json& line : lines) {
      const eval::PromptText context{text::chat::MaskedText(line.at("context").get<std::string>()), false};
      for (size_t i = 0; i < line.at("continuations").size(); ++i) {
        const auto e = encoder.continuation(context, line.at("continuations")[i]);
        const auto& ids = e.continuation.ids;
        const std::vector<int32_t> answer(ids.begin() + static_cast<int64_t>(e.continuation.first), ids.end());
        ASSERT_EQ(answer, line.at("continuation_ids")[i].get<std::vector<int32_t>>()) << name;
        ASSERT_EQ(e.cut, line.at("truncated")[i].get<int64_t>()) << name;
        ASSERT_EQ(uncut.continuation(context, line.at("continuations")[i]).continuation.first,
                  line.at("context_tokens").get<size_t>());
        ++continuations;
      }
    }
  EXPECT_GT(continuations, 1000);
}

TEST(HarnessAnswers, LogLikelihoodsAndDecisionsAreThoseOfTheReference) {
  const GoldenRuns runs;
  if (runs.absent()) GTEST_SKIP() << "BIRKHOFF_ORACLE and BIRKHOFF_DATA are not set";
  GoldenModel m(runs);
  for (const auto& [name, lines] : runs.read(false)) {
    std::vector<Question> questions;
    for (const nlohmann::json& line : lines) questions.push_back(golden_question(line));
    eval::AskCounts counts;
    const auto answers = m.ask(golden_task(lines.front()), questions, counts);
    ASSERT_EQ(answers.size(), lines.size());
    for (size_t d = 0; d < lines.size(); ++d)
      for (size_t i = 0; i < answers[d].choices.size(); ++i) {
        const eval::ContinuationScore& s = answers[d].choices[i].score;
        // The harness's float32 is up to 7.1e-5 from its own float64.
        EXPECT_NEAR(s.loglikelihood, lines[d].at("loglikelihood64")[i].get<double>(), 1e-4) << name << " " << d;
        EXPECT_EQ(s.greedy, lines[d].at("is_greedy")[i].get<bool>()) << name << " " << d;
      }
  }
}

TEST(HarnessAnswers, WrittenTextsAreThoseOfTheReference) {
  const GoldenRuns runs;
  if (runs.absent()) GTEST_SKIP() << "BIRKHOFF_ORACLE and BIRKHOFF_DATA are not set";
  GoldenModel m(runs);
  for (const auto& [name, lines] : runs.read(true)) {
    std::vector<Question> questions;
    for (const nlohmann::json& line : lines) questions.push_back(golden_question(line));
    eval::AskCounts counts;
    const auto answers = m.ask(golden_task(lines.front()), questions, counts);
    ASSERT_EQ(answers.size(), lines.size());
    for (size_t d = 0; d < lines.size(); ++d)
      EXPECT_EQ(answers[d].text, lines[d].at("generated").get<std::string>()) << name << " " << d;
  }
}

}  // namespace
}  // namespace birkhoff::test
