// Study files and grids: what they become, and what is refused.
#include "lab/compare/study.h"

#include <gtest/gtest.h>

#include "lab/plan/schedule.h"
#include "support/temp_dir.h"

namespace birkhoff::lab {
namespace {

using nlohmann::json;
using test::expect_error;
using test::TempDir;

const json kStudy = json::parse(
    R"({"claim": "c", "source": "s", "preset": "tiny", "steps": 7, "seeds": 2, "data": ["text.txt@2"], "set": {"lr": 0.01},
  "variants": [{"name": "plain", "set": {"residual": "plain"}}, {"name": "hot", "group": "g", "set": {"lr": 0.1}}]})");

std::string write(const TempDir& dir, const json& study) { return dir.file("studies/s.json", study.dump()); }

json with(const json& change) {
  json s = kStudy;
  s.update(change);
  return s;
}

TEST(Study, ReadsAFileAndMakesItsRuns) {
  TempDir dir;
  const Study s = read_study(write(dir, kStudy));
  EXPECT_EQ(s.name, "s");
  EXPECT_EQ(s.data, std::vector<std::string>{dir / "studies/text.txt@2"});
  const auto runs = runs_of(s, "out", {"weight_decay=0.5"});
  ASSERT_EQ(runs.size(), 4u);
  EXPECT_EQ(runs[0].directory, "out/runs/plain/seed-1");
  EXPECT_EQ(runs[1].directory, "out/runs/hot/seed-1");
  EXPECT_EQ(runs[2].directory, "out/runs/plain/seed-2");
  EXPECT_STREQ(name_of(runs[0].config.model.residual), "plain");
  EXPECT_STREQ(name_of(runs[1].config.model.residual), "mhc") << "the preset's";
  EXPECT_EQ(runs[0].config.train.lr, 0.01) << "the study's";
  EXPECT_EQ(runs[1].config.train.lr, 0.1) << "the variant's goes over it";
  EXPECT_EQ(runs[3].config.train.seed, 2);
  EXPECT_EQ(runs[3].config.train.steps, 7);
  EXPECT_EQ(runs[3].config.train.weight_decay, 0.5);
}

TEST(Study, OverridesGoOverTheStudyButNotOverWhatVariantsDifferIn) {
  TempDir dir;
  const Study study = read_study(write(dir, kStudy));
  EXPECT_EQ(runs_of(study, "out", {"grad_clip=0.5"})[1].config.train.grad_clip, 0.5);
  expect_error([&] { runs_of(study, "out", {"lr=0.5"}); }, {"--set lr=0.5", "\"hot\"", "0.1"}, ExitCode::usage);
}

TEST(Study, SeedsAreNoSetting) {
  TempDir dir;
  expect_error([&] { runs_of(read_study(write(dir, kStudy)), "out", {"seed=7"}); }, {"--set", "seed", "--seeds"},
               ExitCode::usage);
  expect_error(
      [&] {
        runs_of(read_study(write(dir, with({{"set", {{"seed", 7}}}}))), "out", {});
      },
      {"seed"}, ExitCode::usage);
  expect_error([&] { runs_of(grid_study(json::object(), {"seed=5,6"}), "out", {}); }, {"seed=5", "--seeds"},
               ExitCode::usage);
}

TEST(Study, AKeyIsVariedOnce) {
  expect_error([] { grid_study(json::object(), {"lr=1,2", "lr=3,4"}); }, {"--vary lr", "twice"}, ExitCode::usage);
}

TEST(Study, UnknownFieldsAreNamedWithTheNearest) {
  TempDir dir;
  expect_error(
      [&] {
        read_study(write(dir, with({{"variant", 1}})));
      },
      {"unknown field \"variant\"", "did you mean \"variants\""});
  expect_error(
      [&] {
        read_study(write(dir, with({{"variants", {{{"name", "a"}, {"sett", json::object()}}}}})));
      },
      {"\"sett\"", "\"set\""});
  expect_error(
      [&] {
        read_study(write(dir, with({{"axes", {{"x", "lr"}, {"y", "val_loss"}, {"logx", true}}}})));
      },
      {"\"logx\"", "\"log_x\""});
}

TEST(Study, WrongTypesAndNamesAreRefused) {
  TempDir dir;
  expect_error([&] { read_study(write(dir, with({{"seeds", "three"}}))); }, {"seeds", "three"});
  expect_error([&] { read_study(write(dir, with({{"set", 5}}))); }, {"set", "wrong type"});
  expect_error([&] { read_study(write(dir, with({{"data", {1}}}))); }, {"data", "no path"});
  expect_error([&] { read_study(write(dir, with({{"data", "a.txt"}}))); }, {"data is a list"});
  expect_error([&] { read_study(write(dir, with({{"variants", json::array()}}))); }, {"no variants"});
  expect_error([&] { read_study(write(dir, with({{"variants", {3}}}))); }, {"a variant is an object"});
  expect_error([&] { read_study(write(dir, with({{"variants", {{{"name", "a/b"}}}}}))); }, {"a/b", "directory"});
  expect_error([&] { read_study(write(dir, with({{"variants", {{{"name", ".."}}}}}))); }, {"..", "directory"});
  expect_error(
      [&] {
        read_study(write(dir, with({{"variants", {{{"name", "a"}}, {{"name", "a"}}}}})));
      },
      {"two variants", "\"a\""});
  expect_error([&] { read_study(dir.file("list.json", "[]")); }, {"list.json", "JSON object"});
  expect_error([&] { read_study(dir / "absent.json"); }, {"absent.json"});
  expect_error([&] { read_study(write(dir, with({{"preset", "tinny"}}))); }, {"tinny", "tiny"}, ExitCode::usage);
}

TEST(Study, SettingsAreCheckedBeforeAnythingRuns) {
  TempDir dir;
  const Study unknown =
      read_study(write(dir, with({{"variants", {{{"name", "odd"}, {"set", {{"hidden_sise", 8}}}}}}})));
  expect_error([&] { runs_of(unknown, "out", {}); }, {"variant \"odd\"", "hidden_sise", "hidden_size"},
               ExitCode::usage);
  const Study wrong =
      read_study(write(dir, with({{"variants", {{{"name", "many"}, {"set", {{"num_experts_per_tok", 99}}}}}}})));
  expect_error([&] { runs_of(wrong, "out", {}); }, {"variant \"many\"", "num_experts_per_tok", "99"});
}

TEST(Study, GridIsEveryCombination) {
  const Study s = grid_study(json{{"lr", 1e-3}}, {"residual=plain,mhc", "steps=5,6"});
  ASSERT_EQ(s.variants.size(), 4u);
  EXPECT_EQ(s.variants[0].name, "residual=plain steps=5");
  EXPECT_EQ(s.variants[1].name, "residual=plain steps=6");
  EXPECT_EQ(s.variants[3].set, (json{{"residual", "mhc"}, {"steps", 6}}));
}

TEST(Study, GridValuesMayBeLists) {
  const Study s = grid_study({}, {"compress_ratios=[0,4],[0,8]"});
  ASSERT_EQ(s.variants.size(), 2u);
  EXPECT_EQ(s.variants[1].set["compress_ratios"], json({0, 8}));
}

TEST(Study, GridNeedsKeyAndValues) {
  expect_error([] { grid_study({}, {"residual"}); }, {"--vary residual", "key=a,b"}, ExitCode::usage);
}

TEST(Schedule, SharesTheMachine) {
  EXPECT_EQ(share_machine({100, 100, 100}, 2, 1000).side_by_side, 2);
  EXPECT_EQ(share_machine({100, 100, 100}, 2, 1000).threads_each, 1);
  EXPECT_EQ(share_machine({100, 600, 600}, 2, 1000).side_by_side, 1) << "the two largest do not fit together";
  EXPECT_EQ(share_machine({100, 600, 600}, 2, 1000).threads_each, 2);
  EXPECT_EQ(share_machine({10, 10}, 8, 1000).side_by_side, 2) << "no more than there are runs";
  EXPECT_EQ(share_machine({10, 10}, 8, 1000).threads_each, 4);
  EXPECT_EQ(share_machine({2000}, 4, 1000).side_by_side, 1) << "what does not fit alone is refused elsewhere";
}

}  // namespace
}  // namespace birkhoff::lab
