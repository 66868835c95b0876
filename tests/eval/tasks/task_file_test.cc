// Task files of users: what they may say, and what is refused.
#include <gtest/gtest.h>

#include "eval/tasks/task_data.h"
#include "text/jinja/python_print.h"

namespace birkhoff::eval {
namespace {

using test::complaint;
using test::only_task;
using test::TaskFolder;

// The example of docs/eval.md.
constexpr const char* kCapitals = R"({
  "name": "capitals",
  "documents": {"file": "capitals.jsonl", "form": "JSON lines of {\"country\", \"capital\"}"},
  "shots": {"count": 2, "samples": [{"country": "Italy", "capital": "Rome"}, {"country": "Spain", "capital": "Madrid"}]},
  "text": "The capital of {{country}} is",
  "target": "{{capital}}",
  "generate": {"until": ["\n", "."], "max_tokens": 8},
  "filters": [{"name": "first-word", "steps": [{"regex": "\\w+"}]}],
  "metrics": [{"name": "exact_match", "ignore_case": true}]
})";

constexpr const char* kRows =
    "{\"country\": \"France\", \"capital\": \"Paris\"}\n\n{\"country\": \"Peru\", \"capital\": \"Lima\"}\n";

std::vector<Question> all_questions(const std::string& path, const TaskOptions& options) {
  return only_task(path, options).questions({});
}

TEST(TaskFile, TenLinesMakeATask) {
  const TaskFolder f;
  f.put("capitals.jsonl", kRows);
  const Task task = only_task(f.put("t.json", kCapitals), f.options());
  EXPECT_EQ(task.name, "capitals");
  EXPECT_EQ(task.version, "1.0");
  EXPECT_EQ(task.documents(), 2);
  const Question q = task.questions({}).at(1);
  EXPECT_EQ(q.context, "The capital of Italy is Rome\n\nThe capital of Spain is Madrid\n\nThe capital of Peru is");
  EXPECT_EQ(q.answer, " Lima");
  EXPECT_EQ(q.references.bytes(), "Lima");
  EXPECT_EQ(task.scoring.judge(q.references, " Lima or so").at(0).metrics.at(0).second, 1);
}

TEST(TaskFile, ChoicesFamiliesGroupsAndConditions) {
  const TaskFolder f;
  f.put("d.json", R"({"data": [{"kind": "a", "n": 1, "opts": ["x", "y"]}, {"kind": "b", "n": 2, "opts": ["u", "v"]},
                               {"kind": "a", "n": 9, "opts": ["p", "q"]}]})");
  const std::string path = f.put("t.json", R"({
    "name": "kind_{{kind}}", "version": "3",
    "documents": {"file": "d.json", "list": "data", "where": {"kind": "{{kind}}", "n": {"from": 1, "to": 5}}},
    "fields": {"_last": "opts[-1]", "n": "n", "both": "opts + [_last]"},
    "text": "{{name_of}} {{n}} {{kind}} {{row}}:", "choices": "both", "gold": "n - 1", "metrics": [{"name": "acc"}],
    "each": [{"kind": "a", "name_of": "A", "text": "other {{n}}"}, {"kind": "b", "name_of": "B"}],
    "groups": [{"name": "kinds"}, {"name": "one", "version": "4", "tasks": ["kind_b"]}]})");
  const TaskSet set = open_tasks({path}, f.options());
  ASSERT_EQ(set.tasks.size(), 2u);
  ASSERT_EQ(set.groups.size(), 2u);
  EXPECT_EQ(set.groups[0].tasks, (std::vector<std::string>{"kind_a", "kind_b"}));
  EXPECT_EQ(set.tasks[0].documents(), 1);
  EXPECT_EQ(set.tasks[0].questions({}).at(0).context, "other 1");
  const Question q = set.tasks[1].questions({}).at(0);
  EXPECT_EQ(q.context, "B 2 b 1:");
  EXPECT_EQ(q.choices, (std::vector<std::string>{"u", "v", "v"}));
  EXPECT_EQ(q.gold, 1);
  EXPECT_EQ(python_repr(q.document).bytes(), "{'n': 2, 'both': ['u', 'v', 'v']}");
}

TEST(TaskFile, MayBeLikeABuiltInOne) {
  const TaskFolder f;
  f.put("gsm8k/test.jsonl", "{\"question\": \"2 + 2?\", \"answer\": \"#### 4\"}\n");
  const std::string path = f.put(
      "t.json", R"({"like": "gsm8k", "name": "mine", "shots": null, "text": "{{question}}", "description": "D. "})");
  const Task task = only_task(path, f.options());
  EXPECT_EQ(task.name + task.version, "mine3.0");
  EXPECT_EQ(task.questions({}).at(0).context, "D. 2 + 2?");
  EXPECT_EQ(task.scoring.metrics(), only_task("gsm8k", test::sample_options()).scoring.metrics());
}

TEST(TaskFile, TextOfADocumentIsNeverATemplate) {
  const TaskFolder f;
  f.put("capitals.jsonl", "{\"country\": \"{{capital}}{% raw %}<s>\", \"capital\": \"['a', 'b']\"}\n");
  const Question q = all_questions(f.put("t.json", kCapitals), f.options()).at(0);
  EXPECT_TRUE(q.context.ends_with("The capital of {{capital}}{% raw %}<s> is"));
  EXPECT_EQ(q.references.bytes(), "['a', 'b']");
}

TEST(TaskFile, BeginningsOfAnswersStandBehindTheQuestion) {
  const TaskFolder f;
  f.put("d.jsonl", "{\"q\": \"Q1\", \"a\": \"yes\"}\n");
  const std::string path = f.put("t.json", R"({"name": "t", "documents": {"file": "d.jsonl"},
    "shots": {"count": 1, "samples": [{"q": "Q0", "a": "no"}]}, "text": "{{q}}", "gen_prefix": "Well,",
    "choices": "['yes', 'no']", "gold": "0 if a == 'yes' else 1", "metrics": [{"name": "acc"}]})");
  const Question q = all_questions(path, f.options()).at(0);
  EXPECT_EQ(q.context, "Q0 Well, no\n\nQ1 Well,");
  EXPECT_EQ(q.continuations[0], " yes");
  TaskOptions options = f.options();
  options.conversation = true;
  const Question turns = all_questions(path, options).at(0);
  ASSERT_EQ(turns.turns.size(), 4u);
  EXPECT_EQ(turns.turns[1].content, "Well, no");
  EXPECT_EQ(turns.turns[3].role + turns.turns[3].content, "assistantWell,");
  EXPECT_EQ(turns.continuations[0], " yes");
}

TEST(TaskFile, ThePoolMayHoldTheDocument) {
  const TaskFolder f;
  std::string rows;
  for (int i = 0; i < 4; ++i) rows += "{\"q\": " + std::to_string(i % 2) + "}\n";
  f.put("d.jsonl", rows);
  const auto shots = [&](const std::string& sampler, int64_t n) {
    const std::string path = f.put("t.json", R"({"name": "t", "documents": {"file": "d.jsonl"},
      "shots": {"sampler": ")" + sampler + R"(", "may_hold_document": true, "file": "d.jsonl"},
      "text": "{{q}}", "target": "{{q}}", "generate": {"until": []}, "metrics": [{"name": "exact_match"}]})");
    TaskOptions options = f.options();
    options.shots = n;
    return all_questions(path, options);
  };
  EXPECT_EQ(shots("first_n", 2)[0].shots, (std::vector<int64_t>{1, 3}));
  for (const Question& q : shots("random", 2)) {  // of three drawn rows two may be the document: then again, without it
    ASSERT_EQ(q.shots.size(), 2u);
    for (const int64_t row : q.shots) EXPECT_NE(row % 2, q.doc_id % 2);
  }
  EXPECT_THROW(shots("random", 3), Error);
}

TEST(TaskFile, ExamplesAreThoseOfOneRunOverTheSelection) {
  TaskOptions options = test::sample_options();
  options.shots = 3;
  const Task task = only_task("gsm8k", options);
  Selection some, two;
  some.documents = {2, 0};
  two.limit = 0.5;
  const auto all = task.questions({}), chosen = task.questions(some), half = task.questions(two);
  ASSERT_EQ(chosen.size(), 2u);
  EXPECT_EQ(half.size(), 2u);  // of three, rounded up
  EXPECT_EQ(chosen[0].doc_id, 0);
  EXPECT_EQ(chosen[1].doc_id, 2);
  EXPECT_EQ(chosen[1].shots, all[1].shots);  // the second draw, whatever document it is for
  EXPECT_NE(all[1].shots, all[0].shots);
}

TEST(TaskFile, TheLastRowsStandInForAMissingPool) {
  const TaskFolder f;
  std::string goals, labels;
  for (int i = 0; i < 1003; ++i) {
    goals += "{\"goal\": \"g" + std::to_string(i) + "\", \"sol1\": \"a\", \"sol2\": \"b\"}\n";
    labels += i % 2 ? "1\n" : "0\n";
  }
  f.put("piqa/valid.jsonl", goals);
  f.put("piqa/valid-labels.lst", labels);
  TaskOptions options = f.options();
  options.shots = 1;
  const Task task = only_task("piqa", options);
  EXPECT_EQ(task.documents(), 3);
  ASSERT_EQ(task.remarks.size(), 1u);
  EXPECT_NE(task.remarks[0].find("the last 1000 documents"), std::string::npos);
  const Question q = task.questions({}).at(1);
  EXPECT_TRUE(q.context.starts_with("Question: g" + std::to_string(3 + q.shots.at(0)) + "\n"));
  EXPECT_EQ(q.gold, 1);
  EXPECT_EQ(only_task("piqa_paper", f.options()).documents(), 1003);
}

TEST(TaskErrors, NamesFilesAndFields) {
  const TaskFolder f;
  const auto says = [&](const std::string& name, const TaskOptions& o, std::vector<std::string> parts) {
    const std::string said = complaint(name, o);
    for (const std::string& part : parts) EXPECT_NE(said.find(part), std::string::npos) << part << "\n" << said;
  };
  says("gsm8", f.options(), {"unknown task \"gsm8\"", "did you mean \"gsm8k\"?", "--list"});
  TaskOptions paper = f.options();
  paper.protocol = "paper";
  says("arc_easy", paper, {"unknown task \"arc_easy\" of protocol paper"});
  says("gsm8k", f.options(), {f.path() + "/gsm8k/test.jsonl: no such file", "\"question\"", "tools/eval_data.py"});
  says("gsm8k", {}, {"gsm8k/test.jsonl below --data-dir", "--sample"});
  f.put("capitals.jsonl", "{\"country\": \"France\", \"capital\": \"Paris\"}\n{\"country\": \"Pe\n");
  const std::string path = f.put("t.json", kCapitals);
  says(path, f.options(), {f.path() + "/capitals.jsonl:2: "});
  f.put("capitals.jsonl", "{\"country\": \"France\"}\n");
  says(path, f.options(), {"/capitals.jsonl:1: target: ", "'capital' is undefined", "has the fields country"});
  f.put("capitals.jsonl", "[1]\n");
  says(path, f.options(), {":1: an object was expected, not list"});
  f.put("capitals.jsonl", "\n");
  says(path, f.options(), {"/capitals.jsonl: no rows"});
}

TEST(TaskErrors, RefusesWhatATaskFileMayNotSay) {
  const TaskFolder f;
  f.put("d.jsonl", "{\"q\": \"1\", \"list\": [\"a\", \"b\"]}\n");
  const auto said = [&](const std::string& patch) {
    return complaint(
        f.put("t.json",
              R"({"name": "t", "documents": {"file": "d.jsonl"}, "text": "{{q}}", "metrics": [{"name": "acc"}], )" +
                  patch + "}"),
        f.options());
  };
  EXPECT_EQ(said(R"("choices": "list", "gold": "1")"), "");
  const std::pair<const char*, const char*> cases[] = {
      {R"("choices": "list", "gold": "2")", ":1: gold: an index from 0 to 1"},
      {R"("choices": "q", "gold": "0")", ":1: choices: a list of texts"},
      {R"("choices": "list")", "gold: is missing"},
      {R"("text": "{{q", "choices": "list", "gold": "1")", "text: "},
      {R"("choices": "list[", "gold": "1")", "choices: "},
      {R"("chioces": "list", "choices": "list", "gold": "1")", "did you mean \"choices\"?"},
      {R"("choices": "list", "gold": "1", "generate": {})", "not both or none"},
      {R"("generate": {"max_tokens": 0}, "target": "a")", "max_tokens: at least 1"},
      {R"("generate": {})", "target: is missing"},
      {R"("choices": "list", "gold": "1", "documents": {"file": "../d.jsonl"})", "below the data directory"},
      {R"("choices": "list", "gold": "1", "documents": {"file": "/etc/passwd"})", "below the data directory"},
      {R"("choices": "list", "gold": "1", "documents": {"file": "d.jsonl", "where": {"q": "2"}})", "no row fulfils"},
      {R"("choices": "list", "gold": "1", "shots": {"count": 1})", "file: is missing, and so is \"samples\""},
      {R"("choices": "list", "gold": "1", "shots": {"count": 2, "file": "d.jsonl"})", "2 few-shot examples were asked"},
      {R"("choices": "list", "gold": "1", "like": "none")", "no built-in task file \"none\""},
      {R"("choices": "list", "gold": "1", "each": [])", "each: a list of 1 to"},
      {R"("choices": "list", "gold": "1", "name": "gsm8k")", "is taken"},
      {R"("choices": "list", "gold": "1", "protocol": "mine")", "unknown protocol"},
      {R"("choices": "list", "gold": "1", "groups": [{"name": "g", "tasks": ["u"]}])", "there is no task \"u\""}};
  for (const auto& [patch, expected] : cases) {
    const std::string got = said(patch);
    EXPECT_NE(got.find(expected), std::string::npos) << patch << "\n" << got;
  }
}

TEST(TaskErrors, SelectionsAreChecked) {
  const Task task = only_task("gsm8k", test::sample_options());
  for (const double limit : {0.0, -1.0}) {
    Selection s;
    s.limit = limit;
    EXPECT_THROW(task.questions(s), Error) << limit;
  }
  Selection s;
  s.documents = {3};
  EXPECT_THROW(task.questions(s), Error);
  TaskOptions options = test::sample_options();
  options.shots = 9;
  EXPECT_NE(complaint("gsm8k", options).find("9 few-shot examples were asked for, there are 8"), std::string::npos);
}

TEST(TaskList, SaysWhatThereIs) {
  const TaskFolder f;
  f.put("gsm8k/test.jsonl", "{\"question\": \"\", \"answer\": \"\"}\n");
  f.put("gsm8k/train.jsonl", "{\"question\": \"\", \"answer\": \"\"}\n");
  std::vector<std::string> found;
  for (const TaskListing& t : list_tasks(f.options()))
    if (t.documents) found.push_back(t.name);
  EXPECT_EQ(found, (std::vector<std::string>{"gsm8k", "gsm8k_cot"}));
  EXPECT_EQ(list_groups(f.options()).front().name, "bbh");
}

}  // namespace
}  // namespace birkhoff::eval
