// Tables and pages from results: means, pairs, bands, what failed runs leave.
#include "lab/compare/summary.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lab/compare/results.h"
#include "lab/compare/statistics.h"
#include "lab/compare/study_page.h"
#include "lab/compare/study_progress.h"
#include "support/temp_dir.h"

namespace birkhoff::lab {
namespace {

using nlohmann::json;

json run(int64_t seed, double loss, json more = json::object()) {
  json r{{"seed", seed},
         {"status", "done"},
         {"figures", {{"val_loss", loss}, {"step_ms", 10.0 * static_cast<double>(seed)}, {"rss_mib", 100}}},
         {"curves", {{"step", {1, 2}}, {"loss", {loss + 1, loss}}, {"grad_norm", {1, 1}}}},
         {"validation", json::array({json::array({2, loss})})}};
  r.merge_patch(more);
  return r;
}
json variant(const std::string& name, const std::string& group, std::vector<json> runs,
             json differing = json::object()) {
  return {{"name", name}, {"group", group}, {"differing", differing}, {"runs", runs}};
}
json results(std::vector<json> variants, json study = json::object()) {
  study["name"] = "s";
  return {{"format", 1},
          {"study", study},
          {"unit", "nats per byte"},
          {"settings", {{"steps", 2}}},
          {"machine", json::object()},
          {"variants", variants}};
}

TEST(Summary, MeansErrorsAndPairedDifferences) {
  const json s = summarise(results({variant("a", "", {run(1, 2.0), run(2, 3.0), run(3, 4.0)}),
                                    variant("b", "", {run(1, 2.1), run(2, 3.2), run(3, 4.3)})}));
  const json& b = s["variants"][1];
  EXPECT_DOUBLE_EQ(s["variants"][0]["val_loss"]["mean"], 3.0);
  EXPECT_DOUBLE_EQ(s["variants"][0]["val_loss"]["error"], 1 / std::sqrt(3.0));
  EXPECT_FALSE(s["variants"][0].contains("difference"));
  EXPECT_NEAR(b["difference"]["mean"], 0.2, 1e-12);
  EXPECT_NEAR(b["difference"]["high"], 0.2 + 4.302652729911275 * 0.1 / std::sqrt(3.0), 1e-9);
  EXPECT_DOUBLE_EQ(b["step_ms"]["mean"], 20.0);
}

TEST(Summary, PairsAreTheSeedsThatBothFinished) {
  json lost = run(2, 9.0);
  lost["status"] = "failed";
  lost["figures"].erase("val_loss");
  const json s = summarise(results(
      {variant("a", "", {run(1, 2.0), run(2, 3.0), run(3, 4.0)}), variant("b", "", {run(1, 2.5), lost, run(3, 4.5)})}));
  EXPECT_EQ(s["variants"][1]["difference"]["n"], 2);
  EXPECT_DOUBLE_EQ(s["variants"][1]["difference"]["mean"], 0.5);
  EXPECT_EQ(s["variants"][1]["step_ms"]["n"], 2) << "of the finished ones";
  EXPECT_EQ(s["variants"][1]["failed"], 1);
  EXPECT_EQ(s["variants"][1]["seeds"], 2);
}

TEST(Summary, NothingFinishedIsNoNumber) {
  const json s = summarise(results(
      {variant("a", "", {run(1, 2.0)}), variant("b", "", {{{"seed", 1}, {"status", "failed"}, {"message", "m"}}})}));
  EXPECT_FALSE(s["variants"][1].contains("val_loss"));
  EXPECT_TRUE(s["variants"][1]["difference"]["mean"].is_null());
  EXPECT_EQ(s.dump().find("nan"), std::string::npos);
}

TEST(Summary, ExtremesOfGainsAreOverSeeds) {
  const auto gain = [](double high, double low) {
    return json{{"figures",
                 {{"gain_max", high}, {"gain_min", low}, {"gain_max_token", 2 * high}, {"gain_min_token", low / 2}}}};
  };
  const json row =
      summarise(results({variant("a", "", {run(1, 2, gain(1.5, 0.5)), run(2, 2, gain(3, 0.2))})}))["variants"][0];
  EXPECT_DOUBLE_EQ(row["gain_max"]["mean"], 2.25);
  EXPECT_DOUBLE_EQ(row["gain_max_token"], 6);
  EXPECT_DOUBLE_EQ(row["gain_min_token"], 0.1);
}

TEST(Summary, BestOfEachGroup) {
  const json r =
      results({variant("a1", "a", {run(1, 3.0), run(2, 3.0)}), variant("a2", "a", {run(1, 2.0), run(2, 2.2)}),
               variant("b1", "b", {run(1, 1.9), run(2, 2.3)})},
              {{"best_of_groups", true}});
  const json best = summarise(r)["best"];
  ASSERT_EQ(best.size(), 2u);
  EXPECT_EQ(best[0]["variant"], "a2");
  EXPECT_EQ(best[1]["variant"], "b1");
  EXPECT_NEAR(best[1]["difference"]["mean"], 0.0, 1e-12) << "to the best of the first group, not to the first variant";
}

TEST(Summary, TableHasTheColumnsThatHaveNumbers) {
  const json plain =
      results({variant("a", "", {run(1, 2.0), run(2, 2.0)}), variant("longer", "", {run(1, 2.5), run(2, 2.5)})});
  const std::string t = table_text(plain, summarise(plain));
  EXPECT_NE(t.find("longer       2          2.5000 +- 0.0000  +0.5000 [+0.5000, +0.5000]"), std::string::npos) << t;
  EXPECT_EQ(t.find("MaxVio"), std::string::npos);
  EXPECT_EQ(t.find("max gain"), std::string::npos);
}

TEST(StudyPage, BandsAreMeansAndErrorsAtCommonSteps) {
  const json b = band_of({{{1, 1.0}, {2, 2.0}}, {{1, 3.0}, {2, 2.0}, {3, 9.0}}});
  EXPECT_EQ(b["step"], json({1, 2}));
  EXPECT_EQ(b["mean"], json({2, 2}));
  EXPECT_EQ(b["low"], json({1, 2}));  // deviation sqrt(2), error 1
  EXPECT_EQ(b["high"], json({3, 2}));
  EXPECT_FALSE(band_of({{{1, 1.0}}}).contains("low"));
  EXPECT_TRUE(band_of({}).is_null());
}

TEST(StudyPage, DifferencesArePairedBeforeTheirMean) {
  const json d = difference_band({{{1, 10.0}}, {{1, 20.0}}}, {{{1, 10.5}}, {{1, 20.5}}});
  EXPECT_DOUBLE_EQ(d["mean"][0], 0.5);
  EXPECT_DOUBLE_EQ(d["low"][0], 0.5);
}

TEST(StudyPage, FailedRunsAreApartAndPointsNameFiguresOrSettings) {
  json lost = run(2, 9.0);
  lost["status"] = "failed";
  lost["message"] = "the loss is not finite";
  const json r =
      results({variant("a", "g", {run(1, 2.0), lost}, {{"lr", 0.5}})}, {{"axes", {{"x", "lr"}, {"y", "val_loss"}}}});
  const json page = study_page(r, summarise(r));
  EXPECT_EQ(page["variants"][0]["loss"]["mean"], json({3, 2}));
  EXPECT_EQ(page["variants"][0]["failed"][0]["message"], "the loss is not finite");
  EXPECT_EQ(page["points"]["points"][0]["x"]["mean"], 0.5);
  EXPECT_EQ(page["points"]["points"][0]["y"]["mean"], 2.0);
}

TEST(Results, OtherFilesAreRefused) {
  test::TempDir dir;
  test::expect_error([&] { read_results(dir.file("a.json", "{\"claim\": 1}")); }, {"a.json", "no results"});
  test::expect_error([&] { read_results(dir.file("b.json", R"({"format": 9, "variants": [], "study": {}})")); },
                     {"b.json", "format 9"});
  const json whole = results({variant("a", "", {run(1, 2.0)})});
  const auto refused = [&](json changes, const std::string& about) {
    json j = whole;
    j.update(changes);
    test::expect_error([&] { read_results(dir.file("c.json", j.dump())); }, {"c.json", about});
  };
  EXPECT_EQ(read_results(dir.file("c.json", whole.dump())), whole);
  refused({{"study", 3}}, "study");
  refused({{"unit", nullptr}}, "unit");
  refused({{"variants", json::array()}}, "variants");
  refused({{"variants", {{{"name", "a"}}}}}, "name or group");
  refused({{"variants", {{{"name", "a"}, {"group", ""}, {"runs", {{{"seed", 1}}}}}}}}, "\"a\": a run");
}

TEST(Results, StateIsWhatTheDirectorySays) {
  test::TempDir dir;
  EXPECT_EQ(state_of(dir / "r"), RunState::absent);
  dir.file("r/config.json", "{}");
  EXPECT_EQ(state_of(dir / "r"), RunState::started);
  dir.file("r/run.json", R"({"status": "done"})");
  EXPECT_EQ(state_of(dir / "r"), RunState::started) << "killed before the last validation";
  dir.file("r/run.json", R"({"status": "done", "final_val_loss": 2})");
  EXPECT_EQ(state_of(dir / "r"), RunState::done);
  EXPECT_EQ(saved_step(dir / "r"), 0);
  std::filesystem::create_symlink("checkpoints/step-40", dir / "r/latest");
  EXPECT_EQ(saved_step(dir / "r"), 40);
}

TEST(Progress, LastStepIsThatOfTheLastWholeLine) {
  test::TempDir dir;
  EXPECT_EQ(last_step(dir / "absent"), 0);
  EXPECT_EQ(last_step(dir.file("a", "")), 0);
  EXPECT_EQ(last_step(dir.file("b", "{\"step\": 1}\n{\"step\": 2}\n{\"step\": 3")), 2);
  EXPECT_EQ(last_step(dir.file("c", "{\"step\": 7}\n")), 7);
}

TEST(Progress, TimeLeftKnowsItsVariants) {
  std::vector<RunSpec> runs(4);
  for (size_t i = 0; i < 4; ++i) runs[i].variant = i % 2;
  TimeLeft t(runs);
  EXPECT_LT(t.left({1, 1, 1, 1}, 2), 0) << "nothing seen";
  t.saw(0, 10, 1);
  EXPECT_DOUBLE_EQ(t.left({0, 1, 1, 1}, 1), 30) << "the other variant has the same FLOPs";
  t.saw(1, 10, 0.5);
  EXPECT_DOUBLE_EQ(t.left({0, 0.5, 1, 1}, 1), 40);
  EXPECT_DOUBLE_EQ(t.left({0, 0.5, 1, 1}, 4), 20) << "no shorter than its longest run";
}

}  // namespace
}  // namespace birkhoff::lab
