// Pages of runs: what is read from a run directory, thinned and escaped.
#include "report/report.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "report/run_data.h"
#include "support/temp_dir.h"

namespace birkhoff {
namespace {

using nlohmann::json;
using test::TempDir;

json record(int64_t step, double loss) {
  return {{"step", step},           {"tokens", step * 10},
          {"loss", loss},           {"lr", 1e-3},
          {"grad_norm", 1.0},       {"step_ms", 5.0},
          {"tokens_per_s", 2000.0}, {"gemm_share", 0.5},
          {"rss_mib", 10},          {"phase_ms", {{"forward", 1.0}, {"backward", 3.0}, {"optimizer", 1.0}}}};
}

std::string write_run(const TempDir& dir, const std::vector<json>& records, const std::string& tail = "") {
  std::string lines;
  for (const json& r : records) lines += r.dump() + "\n";
  dir.file("run/metrics.jsonl", lines + tail);
  dir.file("run/config.json", json{{"vocab_size", 256}, {"hidden_size", 8}, {"training", {{"lr", 0.1}}}}.dump());
  dir.file("run/run.json", json{{"status", "done"}, {"final_val_loss", 1.25}}.dump());
  return dir / "run";
}

std::string read(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(Report, ThinningKeepsMeansAndSkipsWhatIsNotFinite) {
  EXPECT_EQ(report::thinned({1, 2, 3}, 5), (std::vector<double>{1, 2, 3}));
  EXPECT_EQ(report::thinned({1, 3, 5, 7}, 2), (std::vector<double>{2, 6}));
  EXPECT_EQ(report::thinned({1, NAN, 5, INFINITY}, 2), (std::vector<double>{1, 5}));
  EXPECT_TRUE(std::isnan(report::thinned({NAN, NAN, 1, 1}, 2)[0]));
  EXPECT_EQ(report::thinned(std::vector<double>(10007, 2.0), 800).size(), 800u);
}

TEST(Report, SmoothingStartsAtTheFirstValue) {
  const auto s = report::smoothed({4, 2, 2, 2}, 3);
  EXPECT_DOUBLE_EQ(s[0], 4);
  EXPECT_DOUBLE_EQ(s[1], 3);
  EXPECT_DOUBLE_EQ(s[2], 2.5);
  EXPECT_DOUBLE_EQ(s[3], 2.25);
  EXPECT_DOUBLE_EQ(report::smoothed({1, NAN, 1}, 3)[1], 1);
}

TEST(Report, ReadsWholeRecordsAndTheLaterOfAStep) {
  TempDir dir;
  // Steps 3 and 4 came again after a resume from step 2; the last line was torn by a kill.
  const auto run = write_run(dir, {record(1, 4), record(2, 3), record(3, 9), record(4, 9), record(3, 2), record(4, 1)},
                             R"({"step": 5, "lo)");
  const json d = report::run_data(run);
  EXPECT_EQ(d["curves"]["step"], json({1, 2, 3, 4}));
  EXPECT_EQ(d["curves"]["loss"], json({4, 3, 2, 1}));
  EXPECT_EQ(d["summary"]["val_loss"], 1.25);
  EXPECT_EQ(d["name"], "run");
  EXPECT_FALSE(d["config"].contains("training"));
  EXPECT_EQ(d["training"]["lr"], 0.1);
}

TEST(Report, SectionsWithoutDataAreNull) {
  TempDir dir;
  const json d = report::run_data(write_run(dir, {record(1, 4), record(2, 3)}));
  for (const char* key : {"gains", "maxvio", "load"}) EXPECT_TRUE(d[key].is_null()) << key;
  EXPECT_TRUE(d["validation"].empty());
}

TEST(Report, LoadsAreRelativeToTheirLayersMean) {
  TempDir dir;
  json r = record(1, 4);
  r["expert_load"] = {{30, 10}, {20, 20}};
  r["maxvio"] = {{"mean", 0.25}, {"layers", {0.5, 0.0}}};
  const json d = report::run_data(write_run(dir, {r}));
  EXPECT_EQ(d["load"]["layers"], json::parse("[[[1.5],[0.5]],[[1.0],[1.0]]]"));
  EXPECT_EQ(d["maxvio"]["layers"], json::parse("[[0.5],[0]]"));
}

TEST(Report, NoTextOfARunBecomesMarkup) {
  TempDir dir;
  const auto run = write_run(dir, {record(1, 4)});
  report::write_report(run, "</script><script>alert(1)</script> \xff");
  const std::string page = read(run + "/report.html");
  EXPECT_EQ(page.find("alert(1)</script>"), std::string::npos);
  EXPECT_NE(page.find("\\u003c/script>"), std::string::npos);
  for (const char* outside : {"http://", "https://", "src=", "@import", "url("})
    for (size_t at = page.find(outside); at != std::string::npos; at = page.find(outside, at + 1))
      EXPECT_TRUE(page.compare(at, 14, "http://www.w3.") == 0 || page.compare(at, 6, "url(#$") == 0)
          << page.substr(at, 40);
}

TEST(Report, LongRunsStaySmall) {
  TempDir dir;
  std::vector<json> records;
  for (int64_t i = 1; i <= 10000; ++i) {
    records.push_back(record(i, 3.0 + std::sin(static_cast<double>(i))));
    records.back()["maxvio"] = {{"mean", 0.2}, {"layers", std::vector<double>(11, 0.123456789)}};
    if (i % 20 == 0) records.back()["expert_load"] = std::vector<std::vector<int64_t>>(11, std::vector<int64_t>(32, i));
  }
  const auto run = write_run(dir, records);
  report::write_report(run, "");
  EXPECT_LT(std::filesystem::file_size(run + "/report.html"), 2u << 20);
}

TEST(Report, WhatIsNoRunIsNamed) {
  TempDir dir;
  test::expect_error([&] { report::write_comparison({dir / "absent"}, dir / "out.html"); },
                     {"absent", "not a directory"});
  test::expect_error([&] { report::write_comparison({dir.path()}, dir / "out.html"); }, {"metrics.jsonl"});
  const auto empty = write_run(dir, {});
  test::expect_error([&] { report::write_comparison({empty}, dir / "out.html"); }, {"no finished step"});
}

TEST(Report, ComparesRuns) {
  TempDir a, b;
  const auto first = write_run(a, {record(1, 4)}), second = write_run(b, {record(1, 3), record(2, 2)});
  report::write_comparison({first, second}, a / "out.html");
  EXPECT_NE(read(a / "out.html").find("Comparison of 2 runs"), std::string::npos);
}

}  // namespace
}  // namespace birkhoff
