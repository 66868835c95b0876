// Pages of evaluations: what is read from results, how many samples a page holds, and that no text leaves its place.
#include "report/evaluation_page.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "support/temp_dir.h"

namespace birkhoff {
namespace {

using nlohmann::json;
using report::TaskSamples;
using test::TempDir;

// What a page holds as data.
json page_data(const std::string& html) {
  const std::string head = "id=\"data\">";
  const size_t begin = html.find(head) + head.size();
  return json::parse(html.substr(begin, html.find("</script>", begin) - begin));
}

json evaluation_results() {
  return {{"results",
           {{"mmlu_law",
             {{"acc", 0.4}, {"acc_stderr", 0.02}, {"n", 600}, {"version", "1.0"}, {"num_fewshot", 5}, {"seconds", 3}}},
            {"gsm8k", {{"exact_match,strict-match", 0.25}, {"exact_match_stderr,strict-match", 0.01}, {"n", 1319}}},
            {"one", {{"acc", 1.0}, {"acc_stderr", nullptr}, {"n", 1}}}}},
          {"groups", {{"mmlu", {{"acc", 0.4}, {"acc_stderr", 0.02}, {"n", 600}, {"tasks", {"mmlu_law"}}}}}},
          {"model", {{"name", "demo </title>"}, {"sha256", "ab"}}},
          {"settings", {{"protocol", "harness"}}}};
}

TaskSamples numbered_samples(int count, size_t context) {
  TaskSamples s{"mmlu_law", json::array()};
  for (int i = 0; i < count; ++i)
    s.samples.push_back(
        {{"doc_id", i}, {"context", std::string(context, 'x') + std::to_string(i)}, {"generated", "A"}});
  return s;
}

TEST(EvaluationPage, MetricsAreWhatHasAnError) {
  TempDir dir;
  report::write_evaluation_page(dir / "report.html", evaluation_results(), {numbered_samples(3, 10)});
  const std::string html = test::read_file(dir / "report.html");
  const json d = page_data(html)["evaluation"];
  EXPECT_EQ(d["name"], "demo </title>");
  EXPECT_NE(html.find("<title>Evaluation of demo &lt;/title&gt;</title>"), std::string::npos);
  ASSERT_EQ(d["tasks"].size(), 3u);
  EXPECT_EQ(d["tasks"][0]["metrics"], (json{{{"name", "exact_match,strict-match"}, {"value", 0.25}, {"error", 0.01}}}));
  EXPECT_EQ(d["tasks"][1]["metrics"], (json{{{"name", "acc"}, {"value", 0.4}, {"error", 0.02}}}));
  EXPECT_EQ(d["tasks"][1]["num_fewshot"], 5);
  EXPECT_TRUE(d["tasks"][2]["metrics"][0]["error"].is_null());
  EXPECT_EQ(d["groups"][0]["tasks"], (json{"mmlu_law"}));
  EXPECT_EQ(d["samples"][0]["rows"].size(), 3u);
  EXPECT_EQ(d["samples"][0]["total"], 3);
}

TEST(EvaluationPage, NoTextEndsTheScript) {
  TempDir dir;
  const std::string text = "</script><script>alert(1)</script><!-- \"'&\\ \xE2\x80\xA8 \x01";
  TaskSamples s{"t</script>", json::array({{{"doc_id", 0}, {"context", text}, {"generated", text + "\xFF"}}})};
  report::write_evaluation_page(dir / "report.html", evaluation_results(), {s});
  const std::string html = test::read_file(dir / "report.html");
  EXPECT_EQ(html.find("alert(1)</script>"), std::string::npos);
  EXPECT_EQ(html.find("<!--"), std::string::npos);
  const json row = page_data(html)["evaluation"]["samples"][0]["rows"][0];
  EXPECT_EQ(row["context"], text);
  EXPECT_EQ(row["generated"], text + "\xEF\xBF\xBD");  // what is no UTF-8 is replaced
}

TEST(EvaluationPage, LargeSetsAreThinnedEvenly) {
  TempDir dir;
  const TaskSamples many = numbered_samples(5000, 10);
  TaskSamples large = numbered_samples(900, 9000), hostile = numbered_samples(300, 10);
  for (json& s : hostile.samples) s["generated"] = std::string(20000, '<');
  report::write_evaluation_page(dir / "report.html", evaluation_results(), {many, large, hostile});
  const std::string html = test::read_file(dir / "report.html");
  EXPECT_LT(html.size(), size_t{20} << 20);
  const json d = page_data(html)["evaluation"]["samples"];
  ASSERT_EQ(d[0]["rows"].size(), 500u);
  EXPECT_EQ(d[0]["total"], 5000);
  EXPECT_EQ(d[0]["rows"][0]["doc_id"], 0);
  EXPECT_EQ(d[0]["rows"][499]["doc_id"], 4990);
  EXPECT_EQ(d[1]["rows"].size(), 500u);
  const std::string context = d[1]["rows"][0]["context"];
  EXPECT_LT(context.size(), 6100u);
  EXPECT_EQ(context.substr(0, 4), "\xE2\x80\xA6x");
  EXPECT_EQ(context.back(), '0');  // its end is kept
  EXPECT_GT(d[2]["rows"].size(), 20u);
  EXPECT_LT(d[2]["rows"].size(), 60u);
}

TEST(EvaluationPage, EmptyEvaluationsAndOnesComparedAreWritten) {
  TempDir dir;
  report::write_evaluation_page(dir / "empty.html", json::object(), {});
  EXPECT_EQ(page_data(test::read_file(dir / "empty.html"))["evaluation"]["name"], "a model");
  const json comparison = {{"evaluations", {{{"name", "a"}}, {{"name", "</script>"}}}}, {"comparisons", json::array()}};
  report::write_evaluation_comparison(dir / "both.html", comparison);
  EXPECT_EQ(page_data(test::read_file(dir / "both.html"))["comparison"], comparison);
  test::expect_error([&] { report::write_evaluation_page(dir / "none/report.html", json::object(), {}); }, {"none"});
}

}  // namespace
}  // namespace birkhoff
