// Training checkpoints: bit-exact, atomic, checked, pruned.
#include "checkpoint/checkpoint.h"

#include <cstring>
#include <limits>

#include "checkpoint/hf_directory.h"
#include "io/manifest.h"
#include "support/limits.h"
#include "support/small_model.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

namespace fs = std::filesystem;

// A run directory with a model, moments and a position.
class Run : public testing::Test {
 protected:
  Run() : model(small_config("mhc"), f32_t, 3, one_thread()) {
    fs::create_directories(run + "/checkpoints");
    for (auto* m : {&moment1, &moment2}) m->resize(static_cast<size_t>(model.elements));
    touch(0);
  }
  // New values everywhere, as a training step leaves them.
  void touch(uint64_t step) {
    for (int64_t i = 0; i < model.elements; ++i) {
      const auto u = static_cast<uint64_t>(i);
      model.m->block[i] = static_cast<float>(Rng(step, 1).normal(u));
      moment1[u] = static_cast<float>(Rng(step, 2).normal(u));
      moment2[u] = static_cast<float>(Rng(step, 3).normal(u));
    }
  }
  std::string save(int64_t step) {
    checkpoint::TrainerState s{moment1.data(), moment2.data(), model.elements, {{"step", step}, {"loss", 1.0 / 3}}};
    return checkpoint::save_checkpoint(run, step, *model.m, model::config_to_json(model.m->config), s);
  }
  // The newest good checkpoint, loaded into other memory and compared with what touch(step) made.
  void expect_loads(int64_t step, const std::string& note = "") {
    std::string said;
    const std::string from = checkpoint::newest_good_checkpoint(run, &said);
    EXPECT_EQ(from, run + "/checkpoints/step-" + std::to_string(step));
    if (note.empty())
      EXPECT_EQ(said, "");
    else
      EXPECT_NE(said.find(note), std::string::npos) << said;
    SmallModel other(model.m->config, f32_t, 77, one_thread());
    std::vector<float> m1(moment1.size()), m2(moment2.size());
    checkpoint::TrainerState s{m1.data(), m2.data(), other.elements, {}};
    checkpoint::load_checkpoint(from, *other.m, s);
    touch(static_cast<uint64_t>(step));
    const size_t bytes = moment1.size() * sizeof(float);
    EXPECT_EQ(std::memcmp(other.m->block, model.m->block, bytes), 0);
    EXPECT_EQ(std::memcmp(m1.data(), moment1.data(), bytes), 0);
    EXPECT_EQ(std::memcmp(m2.data(), moment2.data(), bytes), 0);
    EXPECT_EQ(s.position.at("step"), step);
    EXPECT_EQ(s.position.at("loss").get<double>(), 1.0 / 3);
  }
  void save_steps(std::initializer_list<int64_t> steps) {
    for (int64_t s : steps) {
      touch(static_cast<uint64_t>(s));
      save(s);
    }
  }
  std::string checkpoints() const { return listing(run + "/checkpoints"); }
  void damage(int64_t step, const std::string& file) {
    const std::string path = run + "/checkpoints/step-" + std::to_string(step) + "/" + file;
    std::string content = read_file(path);
    content[content.size() / 2] = static_cast<char>(content[content.size() / 2] ^ 1);
    std::ofstream(path, std::ios::binary) << content;
  }

  TempDir dir;
  std::string run = dir / "run";
  SmallModel model;
  std::vector<float> moment1, moment2;
};

TEST_F(Run, SaveAndLoadIsBitExact) {
  save_steps({10});
  EXPECT_EQ(listing(run + "/checkpoints/step-10"), "config.json manifest.json model.safetensors trainer_state");
  EXPECT_TRUE(io::verify_manifest(run + "/checkpoints/step-10").empty());
  EXPECT_EQ(fs::read_symlink(run + "/latest"), "checkpoints/step-10");
  expect_loads(10);
}

TEST_F(Run, TheNewestIsUsedByNumber) {
  save_steps({9, 100, 20});
  expect_loads(100);
}

TEST_F(Run, SavingAStepAgainReplacesIt) {
  save_steps({5});
  touch(6);
  save(5);
  EXPECT_EQ(checkpoints(), "step-5");
  EXPECT_TRUE(io::verify_manifest(run + "/checkpoints/step-5").empty());
}

TEST_F(Run, ADamagedCheckpointIsPassedOver) {
  for (const char* file : {"model.safetensors", "config.json", "manifest.json", "trainer_state/optimizer.safetensors",
                           "trainer_state/position.json"}) {
    SCOPED_TRACE(file);
    save_steps({1, 2, 3});
    damage(3, file);
    expect_loads(2, "checkpoint step 3 is damaged");
    damage(2, file);
    expect_loads(1, "checkpoint step 2 is damaged");
    std::string note;
    EXPECT_EQ(checkpoint::resolve_model_directory(run, &note), run + "/checkpoints/step-1")
        << "reading a run does the same";
    EXPECT_NE(note.find("using step 1 instead"), std::string::npos) << note;
    damage(1, file);
    expect_error([&] { checkpoint::newest_good_checkpoint(run, nullptr); },
                 {"no checkpoint verifies", "step 3", "step 1"});
  }
}

TEST_F(Run, TruncatedMissingAndEmptyFilesAreNoticed) {
  save_steps({1, 2});
  const std::string weights = run + "/checkpoints/step-2/model.safetensors";
  const std::string content = read_file(weights);
  std::ofstream(weights, std::ios::binary) << content.substr(0, content.size() / 2);
  expect_loads(1, "model.safetensors has " + std::to_string(content.size() / 2) + " bytes");
  std::ofstream(weights, std::ios::trunc).close();
  expect_loads(1, "0 bytes");
  fs::remove(weights);
  expect_loads(1, "model.safetensors is missing");
  fs::remove(run + "/checkpoints/step-2/manifest.json");
  expect_loads(1, "no manifest.json");
}

TEST_F(Run, ACheckpointWithAValueThatIsNoNumberIsPassedOver) {
  save_steps({1});
  touch(2);
  model.m->block[7] = std::numeric_limits<float>::quiet_NaN();
  save(2);
  expect_loads(1, "is not finite");
}

TEST_F(Run, NoCheckpointAtAll) {
  EXPECT_FALSE(checkpoint::has_checkpoints(run));
  expect_error([&] { checkpoint::newest_good_checkpoint(run, nullptr); }, {"no finished checkpoint"});
  dir.file("run/checkpoints/step-x/config.json", "{}");
  dir.file("run/checkpoints/.step-7.tmp-1/config.json", "{}");
  dir.file("run/checkpoints/notes.txt", "");
  EXPECT_FALSE(checkpoint::has_checkpoints(run)) << "other names are no checkpoints";
  save_steps({3});
  EXPECT_TRUE(checkpoint::has_checkpoints(run));
}

TEST_F(Run, PruningKeepsTheNewestAndTheBest) {
  save_steps({1, 2, 3, 4, 5});
  checkpoint::prune_checkpoints(run, 9, -1);
  EXPECT_EQ(checkpoints(), "step-1 step-2 step-3 step-4 step-5");
  checkpoint::prune_checkpoints(run, 2, 2);
  EXPECT_EQ(checkpoints(), "step-2 step-4 step-5");
  checkpoint::prune_checkpoints(run, 2, 5);
  EXPECT_EQ(checkpoints(), "step-4 step-5") << "the best may be among the newest";
  checkpoint::prune_checkpoints(run, 1, -1);
  EXPECT_EQ(checkpoints(), "step-5");
  expect_loads(5);
}

// With 20 checkpoints of which 3 are kept, what a killed process left behind would pile up.
TEST_F(Run, PruningRemovesWhatAKilledProcessLeft) {
  save_steps({1});
  dir.file("run/checkpoints/.step-2.tmp-999999/model.safetensors", "half");
  dir.file("run/.run.json.tmp-999999", "half");
  dir.file("run/.lock", "1");
  dir.file("run/.mine", "a user's file");
  checkpoint::prune_checkpoints(run, 3, -1);
  EXPECT_EQ(checkpoints(), "step-1");
  EXPECT_EQ(listing(run), ".lock .mine checkpoints latest");
}

TEST_F(Run, ADiskThatFillsUpLeavesNothing) {
  save_steps({1});
  const std::string before = listing(run);
  touch(2);
  const auto block = static_cast<rlim_t>(model.elements) * 4;
  for (rlim_t limit : {rlim_t{100}, rlim_t{5000}, block / 2, block + 20000,
                       2 * block}) {  // in config.json, in the weights, in the moments
    {
      const FileSizeLimit full(limit);
      expect_error([&] { save(2); }, {"write failed", "free some space"});
    }
    EXPECT_EQ(checkpoints(), "step-1") << limit;
    EXPECT_EQ(listing(run), before);
    EXPECT_EQ(fs::read_symlink(run + "/latest"), "checkpoints/step-1");
  }
  expect_loads(1);
  touch(2);
  save(2);
  expect_loads(2);
}

TEST_F(Run, WhereNothingMayBeWritten) {
  fs::permissions(dir.path(), fs::perms::all);
  fs::permissions(run + "/checkpoints",
                  fs::perms::owner_read | fs::perms::owner_exec | fs::perms::others_read | fs::perms::others_exec);
  const WithoutPrivileges nobody;
  if (!nobody.effective()) GTEST_SKIP() << "permissions cannot be refused here";
  expect_error([&] { save(1); }, {"step-1", "cannot be created", "Permission denied"});
}

TEST_F(Run, ACheckpointOfAnotherModelIsRefused) {
  save_steps({1});
  model::ModelConfig c = small_config("mhc");
  c.hidden_size = 24;
  SmallModel other(c, f32_t, 1, one_thread());
  std::vector<float> m(static_cast<size_t>(other.elements));
  checkpoint::TrainerState s{m.data(), m.data(), other.elements, {}};
  expect_error([&] { checkpoint::load_checkpoint(run + "/checkpoints/step-1", *other.m, s); },
               {"model.embed_tokens.weight: expected [23,24], file has [23,20]"});
  s.elements = 7;
  SmallModel same(small_config("mhc"), f32_t, 1, one_thread());
  expect_error([&] { checkpoint::load_checkpoint(run + "/checkpoints/step-1", *same.m, s); },
               {"moment1", "expected 7", std::to_string(model.elements)});
}

}  // namespace
}  // namespace birkhoff::test
