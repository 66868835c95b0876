// Means with their errors against the harness, differences against closed forms and by repetition.
#include "eval/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/rng.h"
#include "io/json_file.h"
#include "support/golden.h"

namespace birkhoff {
namespace {

using eval::MeanScore;
using eval::PairedDifference;
using nlohmann::json;

TEST(EvalStatistics, MeanAndErrorOfKnownScores) {
  const MeanScore m = eval::mean_score(std::vector<double>{1, 0, 0, 1, 1});
  EXPECT_EQ(m.n, 5);
  EXPECT_NEAR(m.mean, 0.6, 1e-15);
  EXPECT_NEAR(*m.stderr_, std::sqrt(0.3 / 5), 1e-15);  // variance of the sample: 1.2 / 4
  EXPECT_FALSE(eval::mean_score(std::vector<double>{1}).stderr_);
  EXPECT_TRUE(std::isnan(eval::mean_score({}).mean));
}

TEST(EvalStatistics, GroupsPoolTheVariancesWithinTasks) {
  // By hand: (9 * 10 * 0.04 + 29 * 30 * 0.0025) / (40 - 2) / 40.
  const std::vector<MeanScore> tasks = {{0.5, 0.2, 10}, {0.9, 0.05, 30}};
  const MeanScore g = eval::pooled_score(tasks);
  EXPECT_EQ(g.n, 40);
  EXPECT_NEAR(g.mean, 0.8, 1e-15);
  EXPECT_NEAR(*g.stderr_, std::sqrt((3.6 + 2.175) / 38 / 40), 1e-15);
  EXPECT_FALSE(eval::pooled_score(std::vector<MeanScore>{{0.5, 0.2, 10}, {1, {}, 1}}).stderr_);
}

// A figure of the harness, "N/A" where there is none.
void expect_figure(const json& reported, const std::optional<double>& ours, const std::string& what) {
  if (reported.is_string()) {
    EXPECT_FALSE(ours) << what;
  } else if (ours) {
    EXPECT_NEAR(reported.get<double>(), *ours, 1e-9) << what;
  } else {
    ADD_FAILURE() << what << ": none, but the harness has " << reported;
  }
}

using Scores = std::map<std::string, std::map<std::string, std::vector<double>>>;  // task, "metric,filter"

Scores golden_scores(const std::string& path) {
  Scores all;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    const json row = json::parse(line);
    for (const auto& [filter, metrics] : row["scores"].items())
      for (const auto& [metric, value] : metrics.items())
        all[row["task"]][metric + "," + filter].push_back(value.get<double>());
  }
  return all;
}

// Every leaf task of `scores` that belongs to a group of the harness' summary, by the number of its documents: the
// summaries name no members, but the whole set is the group with all of them.
int check_summary(const std::string& stem) {
  const Scores scores = golden_scores(stem + ".jsonl");
  const json summary = io::read_json(stem + ".summary.json");
  int checked = 0;
  std::map<std::string, std::vector<MeanScore>> whole;
  for (const auto& [task, metrics] : scores)
    for (const auto& [key, values] : metrics) {
      const MeanScore m = eval::mean_score(values);
      whole[key].push_back(m);
      const std::string error = std::string(key).insert(key.find(','), "_stderr");
      expect_figure(summary["results"][task][key], m.mean, task + " " + key);
      expect_figure(summary["results"][task][error], m.stderr_, task + " " + error);
      ++checked;
    }
  for (const auto& [name, group] : summary["groups"].items())
    for (const auto& [key, tasks] : whole) {
      if (!group.contains(key) || group["sample_len"] != eval::pooled_score(tasks).n) continue;
      const MeanScore m = eval::pooled_score(tasks);
      expect_figure(group[key], m.mean, name + " " + key);
      expect_figure(group[std::string(key).insert(key.find(','), "_stderr")], m.stderr_, name + " " + key);
      checked += 1000;
    }
  return checked;
}

TEST(EvalStatistics, FiguresOfTheHarness) {
  const std::string dir = test::golden_dir() + "/eval";
  if (!std::filesystem::exists(dir)) GTEST_SKIP() << "eval: goldens of lm-evaluation-harness (BIRKHOFF_ORACLE)";
  int checked = 0;
  for (const auto& e : std::filesystem::directory_iterator(dir)) {
    const std::string path = e.path().string(), end = ".summary.json";
    if (path.ends_with(end)) checked += check_summary(path.substr(0, path.size() - end.size()));
  }
  EXPECT_GT(checked % 1000, 150);  // tasks and metrics
  EXPECT_GE(checked / 1000, 3);    // groups of all tasks: mmlu twice, bbh
}

TEST(PairedDifference, McNemarOfKnownCounts) {
  // 10 documents for b alone, 2 for a alone: 2 (1 + 12 + 66) / 2^12.
  std::vector<double> a(30, 1), b(30, 1);
  for (size_t i = 0; i < 10; ++i) a[i] = 0;
  for (size_t i = 10; i < 12; ++i) b[i] = 0;
  const PairedDifference d = eval::paired_difference(a, b);
  EXPECT_EQ(d.n, 30);
  EXPECT_EQ(d.a_alone, 2);
  EXPECT_EQ(d.b_alone, 10);
  EXPECT_NEAR(*d.mcnemar, 2.0 * 79 / 4096, 1e-12);
  EXPECT_NEAR(d.mean, 8.0 / 30, 1e-12);
  EXPECT_NEAR(d.stderr_, std::sqrt((12 - 64.0 / 30) / 29 / 30), 1e-12);
  // Agresti and Min: counts 2.5 and 10.5 of 32.
  const double reach = 1.959963984540054 * std::sqrt(13 - 64.0 / 32) / 32;
  EXPECT_NEAR(d.low, 8.0 / 32 - reach, 1e-12);
  EXPECT_NEAR(d.high, 8.0 / 32 + reach, 1e-12);
  EXPECT_NEAR(*eval::paired_difference(b, a).mcnemar, *d.mcnemar, 1e-12);
  EXPECT_NEAR(eval::paired_difference(b, a).low, -d.high, 1e-12);
}

TEST(PairedDifference, EqualScoresDifferByNothing) {
  const std::vector<double> right(100, 1), some = {0.5, 1.5, 2};
  const PairedDifference d = eval::paired_difference(right, right);
  EXPECT_EQ(*d.mcnemar, 1);
  EXPECT_LT(d.low, 0);  // 100 documents do not show that none ever differs
  EXPECT_GT(d.high, 0);
  const PairedDifference e = eval::paired_difference(some, some);
  EXPECT_FALSE(e.mcnemar);
  EXPECT_EQ(e.low, 0);
  EXPECT_EQ(e.high, 0);
  EXPECT_TRUE(std::isnan(eval::paired_difference(std::vector<double>{0.5}, std::vector<double>{1}).low));
  EXPECT_THROW(eval::paired_difference(right, some), ContractViolation);
}

TEST(PairedDifference, McNemarOfManyDocumentsIsFinite) {
  std::vector<double> a(20000, 0), b(20000, 1);
  EXPECT_LT(*eval::paired_difference(a, b).mcnemar, 1e-100);
  for (size_t i = 0; i < a.size(); i += 2) std::swap(a[i], b[i]);
  EXPECT_NEAR(*eval::paired_difference(a, b).mcnemar, 1, 1e-6);
}

TEST(PairedDifference, BootstrapIsAFunctionOfScoresAndSeed) {
  const Rng rng(7);
  std::vector<double> a, b;
  for (uint64_t i = 0; i < 400; ++i) {
    a.push_back(rng.normal(2 * i));
    b.push_back(a.back() + 0.5 + 0.3 * rng.normal(2 * i + 1));
  }
  const PairedDifference d = eval::paired_difference(a, b, 1), same = eval::paired_difference(a, b, 1),
                         other = eval::paired_difference(a, b, 2);
  EXPECT_EQ(d.low, same.low);
  EXPECT_EQ(d.high, same.high);
  EXPECT_NE(d.low, other.low);
  // Of many scores from a normal distribution it is the interval of the normal distribution.
  EXPECT_NEAR(d.low, d.mean - 1.96 * d.stderr_, 0.15 * d.stderr_);
  EXPECT_NEAR(d.high, d.mean + 1.96 * d.stderr_, 0.15 * d.stderr_);
}

TEST(PairedDifference, BootstrapOfASkewedScoreLeansToItsTail) {
  const Rng rng(3);
  std::vector<double> a(60, 0), b;
  for (uint64_t i = 0; i < 60; ++i) b.push_back(std::exp(1.2 * rng.normal(i)));
  const PairedDifference d = eval::paired_difference(a, b);
  EXPECT_GT(d.high - d.mean, 1.05 * (d.mean - d.low));
}

// Out of 200 draws of two equal models, those whose interval covers 0. draw(i, d): both scores of document d.
template <class Draw>
int covered(const Draw& draw, uint64_t documents) {
  int covers = 0;
  for (uint64_t i = 0; i < 200; ++i) {
    std::vector<double> a, b;
    for (uint64_t d = 0; d < documents; ++d) {
      const std::pair<double, double> scores = draw(i, d);
      a.push_back(scores.first);
      b.push_back(scores.second);
    }
    const PairedDifference p = eval::paired_difference(a, b, i);
    covers += p.low <= 0 && 0 <= p.high;
  }
  return covers;
}

TEST(PairedDifference, IntervalOfEqualModelsCoversZero) {
  // Documents that both find easy or hard: right with the document's own probability.
  const auto right = [](uint64_t i, uint64_t d) {
    const double p = Rng(11).uniform(d);
    return std::pair(Rng(22, i).uniform(2 * d) < p ? 1.0 : 0.0, Rng(22, i).uniform(2 * d + 1) < p ? 1.0 : 0.0);
  };
  for (const uint64_t documents : {40u, 400u}) {
    const int covers = covered(right, documents);
    EXPECT_GE(covers, 184) << documents;
    EXPECT_LE(covers, 196) << documents;
  }
  // Losses: a document's own level, and what each model adds to it, skewed.
  const auto loss = [](uint64_t i, uint64_t d) {
    const double level = 3 * Rng(13).uniform(d);
    return std::pair(level + std::exp(Rng(14, i).normal(2 * d)), level + std::exp(Rng(14, i).normal(2 * d + 1)));
  };
  const int covers = covered(loss, 200);
  EXPECT_GE(covers, 184);
  EXPECT_LE(covers, 196);
}

}  // namespace
}  // namespace birkhoff
