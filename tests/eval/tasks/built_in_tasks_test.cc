// Built-in tasks over the questions that are compiled in: forms of prompts, written out.
#include <gtest/gtest.h>

#include <set>

#include "eval/tasks/task_data.h"
#include "text/jinja/python_print.h"

namespace birkhoff::eval {
namespace {

using test::only_task;
using test::sample_options;

Question sample_question(const std::string& task, int64_t id, int64_t shots, TaskOptions options = sample_options()) {
  options.shots = shots;
  Selection selection;
  selection.documents = {id};
  return only_task(task, options).questions(selection).at(0);
}

TEST(BuiltInTasks, EveryTaskOfBothProtocolsAsksItsQuestions) {
  for (const std::string protocol : {"harness", "paper"}) {
    TaskOptions options = sample_options();
    options.protocol = protocol;
    const TaskSet set = open_tasks({"all"}, options);
    EXPECT_EQ(set.tasks.size(), protocol == "harness" ? 110u : 100u);
    for (const Task& t : set.tasks) {
      EXPECT_EQ(t.protocol, protocol) << t.name;
      EXPECT_EQ(t.name.ends_with("_paper"), protocol == "paper") << t.name;
      EXPECT_GE(t.documents(), 3) << t.name;
      EXPECT_FALSE(t.remarks.empty()) << t.name;
      for (const Question& q : t.questions({})) {
        EXPECT_FALSE(q.context.empty()) << t.name;
        EXPECT_FALSE(q.answer.empty()) << t.name;
        EXPECT_EQ(static_cast<int64_t>(q.shots.size()), t.shots) << t.name;
        EXPECT_EQ(q.choices.empty(), t.generates()) << t.name;
        EXPECT_EQ(q.continuations.size(), q.choices.size()) << t.name;
      }
    }
  }
}

TEST(BuiltInTasks, GroupsHoldTheirTasks) {
  const TaskSet set = open_tasks({"mmlu", "bbh", "gsm8k", "mmlu_stem"}, sample_options());
  EXPECT_EQ(set.tasks.size(), 57u + 27 + 1);
  std::vector<std::pair<std::string, size_t>> groups;
  std::set<std::string> parts;
  for (const TaskGroup& g : set.groups) {
    groups.emplace_back(g.name, g.tasks.size());
    if (g.name.starts_with("mmlu_")) parts.insert(g.tasks.begin(), g.tasks.end());
  }
  EXPECT_EQ(groups, (std::vector<std::pair<std::string, size_t>>{{"mmlu", 57},
                                                                 {"mmlu_stem", 19},
                                                                 {"mmlu_other", 13},
                                                                 {"mmlu_social_sciences", 12},
                                                                 {"mmlu_humanities", 13},
                                                                 {"bbh", 27}}));
  EXPECT_EQ(parts.size(), 57u);
  EXPECT_EQ(set.groups[0].version, "2");
}

TEST(BuiltInTasks, ChoicesFollowTheirQuestion) {
  const Question q = sample_question("mmlu_anatomy", 1, 1);
  EXPECT_EQ(q.context,
            "The following are multiple choice questions (with answers) about general knowledge.\n\n"
            "How many minutes are in one hour?\nA. 30\nB. 60\nC. 90\nD. 100\nAnswer: B\n\n"
            "Which of these is frozen water?\nA. Steam\nB. Ice\nC. Rain\nD. Dew\nAnswer:");
  EXPECT_EQ(q.continuations, (std::vector<std::string>{" A", " B", " C", " D"}));
  EXPECT_EQ(q.gold, 1);
  EXPECT_EQ(q.answer, " B");
}

TEST(BuiltInTasks, HellaSwagBeginsSentencesWithACapital) {
  const Question q = sample_question("hellaswag", 0, 0);
  EXPECT_EQ(q.context, "Making tea: A woman fills a kettle with water. She");
  EXPECT_EQ(q.continuations[1], " puts it on the stove.");
  const auto& entries = q.document.as_dict().entries;
  EXPECT_EQ(entries.size(), 8u);
  EXPECT_EQ(entries[0].second.bytes() + "|" + entries[1].second.bytes() + "|" + entries[2].second.bytes(),
            "Making tea|A woman fills a kettle with water.|she");
}

TEST(BuiltInTasks, ChainsOfThoughtBeginBehindTheirQuestion) {
  const Question q = sample_question("bbh_cot_fewshot_navigate", 0, 0);
  EXPECT_EQ(
      q.context,
      "Given a series of navigation instructions, determine whether one would end up back at the starting point.\n\n"
      "Q: If you follow these instructions, do you return to the starting point? Take 2 steps. Turn around. Take 2 "
      "steps.\nOptions:\n- Yes\n- No\nA: Let's think step by step.\n");
  EXPECT_EQ(q.answer, "So the answer is Yes.");
  EXPECT_EQ(q.references.bytes(), "Yes");
}

TEST(BuiltInTasks, DropHasARepairedForm) {
  const Question harness = sample_question("drop", 2, 0), lines = sample_question("drop_lines", 2, 1);
  EXPECT_TRUE(
      harness.context.ends_with("lived in the mill. How many years after the first bridge was the second built?"));
  EXPECT_EQ(python_repr(harness.references).bytes(), "[['51'], ['51 years']]");
  EXPECT_EQ(harness.answer, " 51");
  EXPECT_TRUE(lines.context.starts_with("Passage: ")) << lines.context;
  EXPECT_NE(lines.context.find("\nAnswer: "), std::string::npos);
  EXPECT_TRUE(lines.context.ends_with("was the second built?\nAnswer:"));
  EXPECT_EQ(only_task("drop_lines", sample_options()).until, (std::vector<std::string>{"\n"}));
}

TEST(BuiltInTasks, ProgramsCarryWhatTheirTestNeeds) {
  const Question q = sample_question("humaneval", 0, 0), paper = sample_question("humaneval_paper", 0, 0);
  EXPECT_TRUE(q.context.ends_with("\"\"\"\n"));
  EXPECT_EQ(get(q.references, "prompt").bytes(), q.context);
  EXPECT_TRUE(get(q.references, "test").bytes().ends_with("\n\ncheck(add_three)"));
  EXPECT_TRUE(paper.context.ends_with("\"\"\""));
  EXPECT_TRUE(get(paper.references, "prompt").bytes().ends_with(q.context + "\n"));
}

TEST(BuiltInTasks, PapersPromptsAreTheirFilesWithTheQuestion) {
  const Question gsm = sample_question("gsm8k_paper", 0, 8), math = sample_question("math_algebra_paper", 1, 4);
  EXPECT_TRUE(gsm.context.starts_with("Q: Sara has 4 pears and buys 3 more. How many pears has she?\nA: Sara has"));
  EXPECT_NE(gsm.context.find("The answer is 32.\n\n\nQ: Tom has 3 bags"), std::string::npos);
  EXPECT_TRUE(gsm.context.ends_with("How many are left?\nA:"));
  EXPECT_EQ(gsm.references.bytes(), "13");
  EXPECT_TRUE(math.context.ends_with("I hope it is correct.\n\nProblem:\nSolve $2x=9$ for $x$.\n\nSolution:"));
  EXPECT_EQ(math.answer.substr(math.answer.rfind('\n')),
            "\nFinal Answer: The final answer is $\\frac{9}{2}$. I hope it is correct.");
}

TEST(BuiltInTasks, AConversationHasShotsAsTurns) {
  TaskOptions options = sample_options();
  options.conversation = true;
  options.system = "You are brief.";
  const Question q = sample_question("mmlu_anatomy", 1, 1, options);
  ASSERT_EQ(q.turns.size(), 4u);
  EXPECT_EQ(q.context, "");
  EXPECT_EQ(q.turns[0].role, "system");
  EXPECT_EQ(
      q.turns[0].content,
      "You are brief.\n\nThe following are multiple choice questions (with answers) about general knowledge.\n\n");
  EXPECT_EQ(q.turns[1].content, "How many minutes are in one hour?\nA. 30\nB. 60\nC. 90\nD. 100\nAnswer:");
  EXPECT_EQ(q.turns[2].role + q.turns[2].content, "assistantB");
  EXPECT_EQ(q.turns[3].role, "user");
  EXPECT_EQ(q.continuations[2], "C");
  options.conversation = false;
  EXPECT_TRUE(sample_question("mmlu_anatomy", 1, 0, options).context.starts_with("You are brief.\n\nThe following"));
}

TEST(BuiltInTasks, HashesAreThoseOfPythonsJson) {
  // hashlib.sha256(json.dumps({"a": ["\u00e9", 1, []], "b": {}}, indent=2, ensure_ascii=False).encode()).hexdigest()
  auto dict = std::make_shared<text::chat::DictObject>();
  using text::chat::Value;
  dict->set("a", Value::list({Value::string("\u00e9"), Value::integer(1), Value::list({})}));
  dict->set("b", Value::dict(std::make_shared<text::chat::DictObject>()));
  EXPECT_EQ(document_hash(Value::dict(dict)), "a123b7a970546c592d50707bb04a5dee2797fe846f984eeb04d6a7a2de4f7125");
}

}  // namespace
}  // namespace birkhoff::eval
