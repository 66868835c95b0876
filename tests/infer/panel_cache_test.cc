// Quantised weights that are kept in a file: the bits of those that are made, and files that are not to be believed.
#include "checkpoint/panel_cache.h"

#include <sys/stat.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "infer/measured_model.h"
#include "io/json_file.h"
#include "io/user_files.h"
#include "support/model_directory.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

namespace fs = std::filesystem;
using ops::WeightFormat;

class Panels : public testing::Test {
 protected:
  Panels() {
    model::ModelConfig c = wide_config("plain");
    c.hidden_size = 64, c.intermediate_size = 96, c.moe_intermediate_size = 32, c.q_lora_rank = c.kv_lora_rank = 32,
    c.v_head_dim = 32;
    write_model(dir / "m", c);
  }
  struct Opened {
    std::vector<float> logits;
    std::string note;
    bool made;  // the panels, not mapped
  };
  Opened open(WeightFormat matrices, const std::string& kept, const std::vector<std::string>& set = {}) const {
    Opened o;
    infer::EngineOptions options;
    options.compute = "bf16", options.threads = 2, options.max_positions = 64;
    options.weights = {matrices, matrices};
    options.panels = kept, options.set = set;
    options.progress = [&](int64_t, int64_t) { o.made = true; };
    o.made = false;
    const infer::Engine engine(dir / "m", options);
    engine.full_logits(random_ids(9, 256), [&](int64_t, std::span<const float> row) {
      o.logits.insert(o.logits.end(), row.begin(), row.end());
    });
    o.note = engine.note();
    return o;
  }
  std::string only_file() const {
    const std::vector<std::string> names = io::list_directory(cache);
    EXPECT_EQ(names.size(), 1u);
    return cache + "/" + names.front();
  }
  TempDir dir;
  std::string cache = dir / "cache";
};

TEST_F(Panels, AreMadeOnceAndHaveTheSameBits) {
  const Opened without = open(WeightFormat::q4, ""), first = open(WeightFormat::q4, cache);
  EXPECT_TRUE(without.made);
  EXPECT_TRUE(first.made);
  const Opened second = open(WeightFormat::q4, cache);
  EXPECT_FALSE(second.made);
  EXPECT_EQ(without.logits, first.logits);
  EXPECT_EQ(without.logits, second.logits);
  EXPECT_EQ(second.note, "");
  only_file();
}

TEST_F(Panels, BelongToFilesFormatsAndSettings) {
  open(WeightFormat::q4, cache);
  EXPECT_TRUE(open(WeightFormat::q8, cache).made);
  EXPECT_TRUE(open(WeightFormat::q4, cache, {"rms_norm_eps=1e-5"}).made);
  EXPECT_FALSE(open(WeightFormat::q4, cache).made);
  EXPECT_FALSE(open(WeightFormat::q8, cache).made);
  EXPECT_EQ(io::list_directory(cache).size(), 3u);
  const std::string weights = dir / "m/model.safetensors";
  const auto time = fs::last_write_time(weights);
  fs::last_write_time(weights, time + std::chrono::nanoseconds(1000));
  EXPECT_TRUE(open(WeightFormat::q4, cache).made);
  std::string bytes = read_file(weights);
  bytes.back() ^= 1;
  dir.file("m/model.safetensors", bytes);
  fs::last_write_time(weights, time);  // other content, and the old time
  EXPECT_TRUE(open(WeightFormat::q4, cache).made);
}

TEST_F(Panels, DamagedFilesAreMadeAgain) {
  const Opened want = open(WeightFormat::q4, cache);
  const std::string path = only_file(), good = read_file(path);
  for (const size_t at : {size_t{0}, size_t{9}, size_t{17}, size_t{30}, size_t{60}, good.size() / 2, good.size() - 1}) {
    std::string bad = good;
    bad[at] ^= 4;
    dir.file("cache/" + fs::path(path).filename().string(), bad);
    const Opened got = open(WeightFormat::q4, cache);
    EXPECT_TRUE(got.made) << at;
    EXPECT_NE(got.note.find("made again"), std::string::npos) << at << got.note;
    EXPECT_EQ(got.logits, want.logits);
    EXPECT_TRUE(read_file(path) == good) << at;
  }
  for (const size_t size : {size_t{0}, size_t{20}, good.size() - 64, good.size() + 64}) {
    std::string bad = good;
    bad.resize(size);
    dir.file("cache/" + fs::path(path).filename().string(), bad);
    EXPECT_TRUE(open(WeightFormat::q4, cache).made) << size;
    EXPECT_TRUE(read_file(path) == good) << size;
  }
}

// Of panels that memory cannot hold a sample of chunks is looked at: of these, which are one chunk, all.
TEST_F(Panels, ASampleIsLookedAtOfMoreThanMemory) {
  open(WeightFormat::q4, cache);
  const std::string path = only_file(), good = read_file(path);
  infer::EngineOptions options;
  options.compute = "bf16", options.weights = {WeightFormat::q4, WeightFormat::q4};
  const infer::MeasuredModel m(dir / "m", options);
  checkpoint::PanelCache panels(cache, *m.files, *m.shapes, m.panels.peak());
  ASSERT_EQ(panels.path(), path);
  EXPECT_TRUE(panels.open(one_thread(), 0));
  EXPECT_EQ(panels.complaint(), "");
  std::string bad = good;
  bad[good.size() - 100] ^= 4;
  dir.file("cache/" + fs::path(path).filename().string(), bad);
  EXPECT_FALSE(panels.open(one_thread(), 0));
  EXPECT_EQ(panels.complaint(), path + ": is damaged");
}

TEST_F(Panels, AreMadeWithoutAnEngine) {
  infer::EngineOptions options;
  options.compute = "bf16", options.panels = cache, options.weights = {WeightFormat::q4, WeightFormat::q4};
  EXPECT_TRUE(infer::make_panels(dir / "m", options));
  EXPECT_FALSE(open(WeightFormat::q4, cache).made);
  options.weights = {WeightFormat::stored, WeightFormat::stored};
  EXPECT_FALSE(infer::make_panels(dir / "m", options)) << "no matrix is quantised";
}

TEST_F(Panels, APlaceThatCannotBeWrittenCostsTheFileAlone) {
  const std::string taken = dir.file("taken", "");
  const Opened got = open(WeightFormat::q4, taken);
  EXPECT_EQ(got.logits, open(WeightFormat::q4, "").logits);
  EXPECT_NE(got.note.find("not kept"), std::string::npos) << got.note;
}

TEST_F(Panels, OfTheDirectoryItself) {
  nlohmann::json config = io::read_json(dir / "m/config.json");
  config["panels"] = checkpoint::panels_key({WeightFormat::q4, WeightFormat::q8});
  io::write_json(dir / "m/config.json", config);
  Opened got = open(WeightFormat::automatic, "");
  EXPECT_TRUE(got.made);  // there are none yet, and a directory that is only read is not written to
  EXPECT_NE(got.note.find("made again"), std::string::npos) << got.note;
  EXPECT_EQ(listing(dir / "m"), "config.json model.safetensors");
  EXPECT_TRUE(open(WeightFormat::automatic, dir / "m").made);
  const Opened again = open(WeightFormat::automatic, "");
  EXPECT_FALSE(again.made);
  EXPECT_EQ(again.note, "");
  EXPECT_EQ(again.logits, got.logits);
  EXPECT_FALSE(open(WeightFormat::stored, "").made);
  config["panels"]["weights"] = "q5";
  io::write_json(dir / "m/config.json", config);
  expect_error([&] { open(WeightFormat::automatic, ""); }, {"panels.weights", "q5"});
}

}  // namespace
}  // namespace birkhoff::test
