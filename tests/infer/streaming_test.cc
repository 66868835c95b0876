// Models whose weights stay in their files: what is expected of them, and their bits.
#include "infer/streaming.h"

#include <nlohmann/json.hpp>

#include "core/process.h"
#include "infer/measured_model.h"
#include "infer/session.h"
#include "io/json_file.h"
#include "io/user_files.h"
#include "support/model_directory.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

TEST(Streaming, WhatATokenReadsFromTheDisk) {
  model::WeightTraffic moe{100, 800, 0.25};
  EXPECT_EQ(moe.per_token(), 300);
  EXPECT_EQ(moe.from_disk(900), 0);
  EXPECT_EQ(moe.from_disk(5000), 0);
  EXPECT_EQ(moe.from_disk(500), 100) << "half of the experts are there";
  EXPECT_EQ(moe.from_disk(100), 200) << "no expert, and all that every token reads";
  EXPECT_EQ(moe.from_disk(40), 260);
  EXPECT_EQ(moe.from_disk(0), 300);
  const model::WeightTraffic dense{1000, 0, 0};
  EXPECT_EQ(dense.from_disk(1000), 0);
  EXPECT_EQ(dense.from_disk(999), 1);

  infer::StreamedSpeed speed{{int64_t{100} << 20, int64_t{800} << 20, 0.25}, double{500 << 20}, 1e9};
  EXPECT_EQ(speed.said(),
            "streamed: weights of 900 MiB, 500 MiB stay in memory: a token is expected to read 100 MiB of its 300 "
            "MiB from the disk, at 1.00 GB/s 9.54 tokens/s");
  speed.memory = 1e12;
  EXPECT_NE(speed.said().find("900 MiB stay in memory once they were read"), std::string::npos);
}

// Bytes of matrices that stay, of every token and of experts.
std::pair<double, double> kept(const model::Model& m) {
  double every = 0, routed = 0;
  layers::for_each_linear(m.weights, "", [&](const std::string& name, const layers::Linear& l) {
    std::vector<ByteRange> memory;
    layers::add_memory(l, false, memory);
    for (const ByteRange& r : memory)
      if (!l.passing) (name.find(".experts.") != std::string::npos ? routed : every) += static_cast<double>(r.size());
  });
  return {every, routed};
}

TEST(Streaming, WhatHasRoomStays) {
  const TempDir dir;
  model::ModelConfig c = wide_config("plain");
  c.num_hidden_layers = 4;
  write_model(dir / "m", c);
  infer::EngineOptions options;
  options.max_positions = 64, options.weights = {ops::WeightFormat::stored, ops::WeightFormat::stored};
  const infer::Engine engine(dir / "m", options);
  auto& m = const_cast<model::Model&>(engine.model());
  const model::WeightTraffic t = model::weight_traffic(m);
  const double every = kept(m).first, routed = kept(m).second;
  ASSERT_GT(routed, 0);
  for (const double part : {0.0, 0.3, 1.0}) {
    model::keep_in_memory(m, static_cast<double>(t.every) + part * static_cast<double>(t.routed));
    EXPECT_EQ(kept(m).first, every);
    EXPECT_NEAR(kept(m).second, part * routed, routed / 10) << part;
  }
  model::keep_in_memory(m, static_cast<double>(t.every) / 2);
  EXPECT_NEAR(kept(m).first, every / 2, every / 4);
  EXPECT_EQ(kept(m).second, 0);
}

TEST(Streaming, TheDiskIsMeasured) {
  const TempDir dir;
  const Exec exec(2);
  EXPECT_GT(infer::disk_read_rate(exec, dir.file("large", std::string(9 << 20, 'x'))), 0);
  EXPECT_GT(infer::disk_read_rate(exec, dir.file("small", std::string(5000, 'x'))), 0);
  EXPECT_EQ(infer::disk_read_rate(exec, dir / "absent"), 0);
}

std::vector<float> logits_of(const infer::Engine& engine) {
  std::vector<float> logits;
  engine.full_logits(random_ids(9, 256),
                     [&](int64_t, std::span<const float> row) { logits.insert(logits.end(), row.begin(), row.end()); });
  infer::Session session(engine, 20);
  session.feed(random_ids(6, 256));
  for (const int32_t id : {3, 1, 4}) {
    const std::span<const float> row = session.feed({&id, 1}, infer::TokenRole::generated);
    logits.insert(logits.end(), row.begin(), row.end());
  }
  return logits;
}

std::vector<float> logits_of(const std::string& model, const infer::EngineOptions& options, std::string* note) {
  const infer::Engine engine(model, options);
  EXPECT_EQ(engine.streamed().has_value(), options.stream);
  EXPECT_EQ(engine.model().stream_bytes > 0, options.stream);
  *note = engine.note();
  return logits_of(engine);
}

// Sizes that can be quantised.
model::ModelConfig streamed_config(const std::string& residual) {
  model::ModelConfig c = wide_config(residual);
  c.hidden_size = 64, c.intermediate_size = 96, c.moe_intermediate_size = 32, c.q_lora_rank = c.kv_lora_rank = 32,
  c.v_head_dim = 32;
  return c;
}

TEST(Streaming, HasTheSameBits) {
  const TempDir dir;
  write_model(dir / "m", streamed_config("mhc"));
  infer::EngineOptions options;
  options.threads = 2, options.max_positions = 64, options.caches.bytes = 1 << 20;
  std::string note;
  for (const ops::WeightFormat format : {ops::WeightFormat::stored, ops::WeightFormat::q4}) {
    options.weights = {format, format};
    options.panels = "", options.stream = false;
    const std::vector<float> want = logits_of(dir / "m", options, &note);
    options.panels = dir / "panels", options.stream = true;
    EXPECT_EQ(logits_of(dir / "m", options, &note), want) << "panels are made";
    EXPECT_EQ(note.rfind("streamed: weights of ", 0), 0u) << note;
    EXPECT_EQ(logits_of(dir / "m", options, &note), want);
    EXPECT_EQ(io::exists(dir / "panels"), format == ops::WeightFormat::q4);
  }
}

// Nothing stays: every matrix that a token reads is asked for, used and given back.
TEST(Streaming, WhatPassesHasTheSameBits) {
  model::ModelConfig tied = streamed_config("plain");
  tied.tie_word_embeddings = true;
  for (const model::ModelConfig& c : {streamed_config("plain"), streamed_config("mhc"), wide_v4_config(), tied}) {
    const TempDir dir;
    write_model(dir / "m", c);
    infer::EngineOptions options;
    options.threads = 2, options.max_positions = 64, options.caches.bytes = 1 << 20;
    options.weights = {ops::WeightFormat::stored, ops::WeightFormat::stored};
    const std::vector<float> want = logits_of(infer::Engine(dir / "m", options));
    options.stream = true;
    const infer::Engine engine(dir / "m", options);
    model::keep_in_memory(const_cast<model::Model&>(engine.model()), 0);
    EXPECT_EQ(kept(engine.model()), (std::pair<double, double>(0, 0)));
    EXPECT_EQ(engine.model().weights.head.passing, true);
    EXPECT_EQ(logits_of(engine), want) << c.model_type << (c.tie_word_embeddings ? " tied" : "");
  }
}

TEST(Streaming, DamagedPanelsAreNoticed) {
  const TempDir dir;
  write_model(dir / "m", streamed_config("plain"));
  infer::EngineOptions options;
  options.max_positions = 64, options.stream = true, options.caches.bytes = 1 << 20;
  options.weights = {ops::WeightFormat::q4, ops::WeightFormat::q4}, options.panels = dir / "panels";
  std::string note;
  const std::vector<float> want = logits_of(dir / "m", options, &note);
  const std::string name = io::list_directory(dir / "panels").at(0), good = read_file(dir / "panels/" + name);
  std::string bad = good;
  bad[bad.size() / 2] ^= 4;
  dir.file("panels/" + name, bad);
  EXPECT_EQ(logits_of(dir / "m", options, &note), want);
  EXPECT_NE(note.find(name + ": is damaged: made again"), std::string::npos) << note;
  EXPECT_TRUE(read_file(dir / "panels/" + name) == good);

  nlohmann::json config = io::read_json(dir / "m/config.json");  // a directory that carries them, and is only read
  config["panels"] = checkpoint::panels_key(options.weights);
  io::write_json(dir / "m/config.json", config);
  options.panels = dir / "m";
  EXPECT_TRUE(infer::make_panels(dir / "m", options));
  options.panels = "", options.weights = {};
  EXPECT_EQ(logits_of(dir / "m", options, &note), want);
  options.latent_attention = model::LatentAttention::expanded;
  expect_error([&] { infer::Engine(dir / "m", options); }, {"are for caches of latents", "--cache DIR"},
               ExitCode::usage);
  options.weights = {ops::WeightFormat::q8, ops::WeightFormat::q8};
  expect_error([&] { infer::Engine(dir / "m", options); }, {"are of other number formats"}, ExitCode::usage);
  options.latent_attention = model::LatentAttention::by_role, options.weights = {};
  dir.file("m/" + name, bad);
  expect_error([&] { infer::Engine(dir / "m", options); }, {name, "is damaged", "--cache DIR"}, ExitCode::usage);
}

TEST(Streaming, RefusesWhatLiesInNoFile) {
  const TempDir dir;
  model::ModelConfig c = wide_config("plain");
  c.hidden_size = 64;
  write_model(dir / "m", c);
  infer::EngineOptions options;
  options.max_positions = 64, options.stream = true, options.weights = {ops::WeightFormat::q8, ops::WeightFormat::q8};
  expect_error([&] { infer::Engine(dir / "m", options); }, {"are in no file", "--cache DIR", "--weights stored"},
               ExitCode::usage);
  options.panels = dir.file("taken", "");
  expect_error([&] { infer::Engine(dir / "m", options); }, {"taken"});
  options.panels = dir / "panels", options.caches.bytes = static_cast<int64_t>(machine_memory_bytes());
  expect_error([&] { infer::Engine(dir / "m", options); }, {"caches of", "leave nothing of", "--cache-memory"});
}

}  // namespace
}  // namespace birkhoff::test
