// Two evaluations over the same documents: what is paired, what is left out, what is said of it.
#include "eval/compare_results.h"

#include <gtest/gtest.h>

#include "support/temp_dir.h"

namespace birkhoff {
namespace {

using nlohmann::json;
using test::TempDir;

json choice_sample(int id, bool right, double nats, const std::string& context = "Question") {
  return {{"doc_id", id},
          {"context", context + " " + std::to_string(id)},
          {"choices",
           {{{"continuation", " yes"}, {"logprob", right ? -1 : -3}}, {{"continuation", " no"}, {"logprob", -2}}}},
          {"metrics", {{"acc", right ? 1.0 : 0.0}}},
          {"gold_nats_per_byte", nats}};
}

json generated_sample(int id, double f1) {
  return {
      {"doc_id", id},
      {"context", "Write"},
      {"generated", "text"},
      {"metrics", json::object()},
      {"filters",
       {{"none", {{"extracted", "text"}, {"f1", f1}}}, {"strict", {{"extracted", "x"}, {"exact_match", f1 > 0.5}}}}}};
}

json task_entry(const char* version = "1.0", int shots = 0) {
  return {{"acc", 0.5}, {"n", 10}, {"version", version}, {"num_fewshot", shots}};
}

// An evaluation in a folder: tasks with their lines.
std::string write_evaluation(const TempDir& dir, const std::string& name,
                             const std::map<std::string, std::vector<json>>& tasks, json results = json::object()) {
  if (!results.contains("results"))
    for (const auto& t : tasks) results["results"][t.first] = task_entry();
  dir.file(name + "/results.json", results.dump());
  for (const auto& t : tasks) {
    std::string lines;
    for (const json& line : t.second) lines += line.dump() + "\n";
    dir.file(name + "/samples_" + t.first + ".jsonl", lines);
  }
  return dir / name;
}

// Documents 0 to 19: b has 0 to 9 alone, a has 10 and 11 alone, both have the rest.
std::vector<json> twenty(bool b) {
  std::vector<json> lines;
  for (int i = 0; i < 20; ++i)
    lines.push_back(choice_sample(i, i >= 12 || (i < 10) == b, (b ? 1.0 : 1.5) + 0.01 * (i % 5)));
  return lines;
}

TEST(CompareResults, PairsScoresOfTheSameDocuments) {
  TempDir dir;
  const json both = eval::compare_results(
      {write_evaluation(dir, "plain", {{"t", twenty(false)}}), write_evaluation(dir, "mhc/", {{"t", twenty(true)}})});
  EXPECT_EQ(both["evaluations"][0]["name"], "plain");
  EXPECT_EQ(both["evaluations"][1]["name"], "mhc");
  const json& c = both["comparisons"][0];
  EXPECT_EQ(c["notes"], json::array());
  const json& acc = c["tasks"]["t"]["metrics"]["acc"];
  EXPECT_NEAR(acc["a"].get<double>(), 0.5, 1e-12);
  EXPECT_NEAR(acc["b"].get<double>(), 0.9, 1e-12);
  EXPECT_NEAR(acc["difference"].get<double>(), 0.4, 1e-12);
  EXPECT_NEAR(acc["mcnemar"].get<double>(), 2.0 * 79 / 4096, 1e-9);
  EXPECT_EQ(acc["a_alone"], (json{10, 11}));
  EXPECT_EQ(acc["b_alone"].size(), 10u);
  EXPECT_EQ(acc["better"], "b");
  const json& nats = c["tasks"]["t"]["metrics"]["gold_nats_per_byte"];
  EXPECT_NEAR(nats["difference"].get<double>(), -0.5, 1e-12);
  EXPECT_EQ(nats["better"], "b");  // lower
  EXPECT_FALSE(nats.contains("mcnemar"));
  ASSERT_EQ(c["tasks"]["t"]["examples"].size(), 12u);
  EXPECT_EQ(c["tasks"]["t"]["examples"][0]["a"], " no");
  EXPECT_EQ(c["tasks"]["t"]["examples"][0]["b"], " yes");
  EXPECT_EQ(c["tasks"]["t"]["examples"][0]["context"], "Question 0");
}

TEST(CompareResults, MetricsOfFiltersAndRealScores) {
  TempDir dir;
  std::vector<json> a, b;
  for (int i = 0; i < 8; ++i) {
    a.push_back(generated_sample(i, 0.1 * i));
    b.push_back(generated_sample(i, 0.1 * i + 0.2));
  }
  const json both =
      eval::compare_results({write_evaluation(dir, "a", {{"t", a}}), write_evaluation(dir, "b", {{"t", b}})});
  const json& metrics = both["comparisons"][0]["tasks"]["t"]["metrics"];
  EXPECT_NEAR(metrics["f1"]["difference"].get<double>(), 0.2, 1e-12);
  EXPECT_FALSE(metrics["f1"].contains("mcnemar"));
  EXPECT_NEAR(metrics["exact_match,strict"]["difference"].get<double>(), 0.25, 1e-12);
  EXPECT_TRUE(metrics["exact_match,strict"].contains("mcnemar"));
}

TEST(CompareResults, GroupsWeighDocumentsAndPoolErrors) {
  TempDir dir;
  std::vector<json> few;
  for (int i = 0; i < 5; ++i) few.push_back(choice_sample(i, i < 2, 1));
  const auto evaluation = [&](const char* name, bool b) {
    const json groups = {{"all", {{"tasks", {"t", "u", "absent"}}}}};
    return write_evaluation(dir, name, {{"t", twenty(b)}, {"u", few}},
                            {{"results", {{"t", task_entry()}, {"u", task_entry()}}}, {"groups", groups}});
  };
  const json both = eval::compare_results({evaluation("a", false), evaluation("b", true)});
  const json& c = both["comparisons"][0];
  const json& acc = c["groups"]["all"]["metrics"]["acc"];
  EXPECT_EQ(acc["n"], 25);
  EXPECT_NEAR(acc["a"].get<double>(), (10 + 2) / 25.0, 1e-12);
  EXPECT_NEAR(acc["difference"].get<double>(), 8 / 25.0, 1e-12);
  // Within tasks: 20 documents half of them right, 5 with two right: (19 * 20 * 0.25 / 19 + 4 * 5 * 0.24 / 4) / 23
  // / 25.
  EXPECT_NEAR(acc["a_stderr"].get<double>(), std::sqrt((5 + 1.2) / 23 / 25), 1e-12);
  EXPECT_EQ(acc["b_alone"], 10);
  EXPECT_EQ(c["notes"], (json{"all: 2 of its 3 tasks can be compared"}));
}

TEST(CompareResults, WhatDiffersIsLeftOutByName) {
  TempDir dir;
  std::vector<json> fewer(15), changed = twenty(true);
  for (int i = 0; i < 15; ++i) fewer[i] = twenty(true)[i + 5];  // without 0 to 4
  fewer.push_back(choice_sample(99, true, 1));
  for (int i = 0; i < 3; ++i) changed[i] = choice_sample(i, true, 1, "Another question");
  const auto a = write_evaluation(
      dir, "a", {{"t", twenty(false)}, {"u", twenty(false)}, {"v", twenty(false)}, {"w", twenty(false)}},
      {{"results", {{"t", task_entry()}, {"u", task_entry()}, {"v", task_entry("1.0")}, {"w", task_entry("1.0", 5)}}},
       {"settings", {{"protocol", "harness"}, {"context", 512}}}});
  const auto b = write_evaluation(
      dir, "b", {{"t", fewer}, {"u", changed}, {"v", twenty(true)}, {"w", twenty(true)}, {"x", twenty(true)}},
      {{"results",
        {{"t", task_entry()},
         {"u", task_entry()},
         {"v", task_entry("2.0")},
         {"w", task_entry("1.0", 3)},
         {"x", task_entry()}}},
       {"settings", {{"protocol", "harness"}, {"context", 256}}}});
  const json both = eval::compare_results({a, b});
  const json& c = both["comparisons"][0];
  EXPECT_EQ(c["tasks"]["t"]["n"], 15);
  EXPECT_EQ(c["tasks"]["u"]["n"], 17);
  EXPECT_EQ(c["tasks"].size(), 2u);
  EXPECT_EQ(c["notes"],
            (json{"t: 5 documents only in a", "t: 1 document only in b",
                  "u: 3 documents left out, whose prompts differ", "v: left out, version \"1.0\" in a, \"2.0\" in b",
                  "w: left out, num_fewshot 5 in a, 3 in b", "x: only in b"}));
  EXPECT_EQ(c["settings"], (json{{"context", {512, 256}}}));
  const std::string table = eval::comparison_table(both);
  for (const char* part : {"+0.2000", "note: x: only in b", "differs: context 512 in a, 256 in b", "acc"})
    EXPECT_NE(table.find(part), std::string::npos) << part << "\n" << table;
}

TEST(CompareResults, TableOfThreeNamesWhoIsBetter) {
  TempDir dir;
  const auto a = write_evaluation(dir, "plain", {{"t", twenty(false)}}),
             b = write_evaluation(dir, "mhc", {{"t", twenty(true)}}),
             c = write_evaluation(dir, "x/plain", {{"t", twenty(false)}});
  const json all = eval::compare_results({a, b, c});
  EXPECT_EQ(all["evaluations"][0]["name"], a);  // two of one name: by their directories
  ASSERT_EQ(all["comparisons"].size(), 2u);
  EXPECT_EQ(all["comparisons"][1]["tasks"]["t"]["metrics"]["acc"]["better"], "");
  const std::string table = eval::comparison_table(all);
  EXPECT_NE(table.find("2 : 10"), std::string::npos) << table;
  EXPECT_NE(table.find("0.5000 +- 0.1147"), std::string::npos) << table;
}

TEST(CompareResults, SaysWhatIsWrong) {
  TempDir dir;
  const auto a = write_evaluation(dir, "a", {{"t", twenty(false)}}),
             other = write_evaluation(dir, "other", {{"u", twenty(true)}});
  test::expect_error([&] { eval::compare_results({a}); }, {"two evaluations"}, ExitCode::usage);
  test::expect_error([&] { eval::compare_results({a, dir / "none"}); }, {"none/results.json"});
  test::expect_error(
      [&] {
        eval::compare_results({a, other});
      },
      {"no documents in common", "t: only in a", "u: only in other"});
  dir.file("broken/results.json", "[]");
  test::expect_error([&] { eval::compare_results({a, dir / "broken"}); }, {"broken/results.json", "results"});
  const auto torn = write_evaluation(dir, "torn", {{"t", twenty(true)}});
  dir.file("torn/samples_t.jsonl", choice_sample(0, true, 1).dump() + "\n{\"doc_id\": 1, \"con");
  test::expect_error([&] { eval::compare_results({a, torn}); }, {"samples_t.jsonl:2", "no sample"});
  std::filesystem::remove(torn + "/samples_t.jsonl");
  test::expect_error([&] { eval::compare_results({a, torn}); }, {"samples_t.jsonl"});
}

}  // namespace
}  // namespace birkhoff
