#include "eval/likelihood.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "checkpoint/hf_directory.h"
#include "support/small_model.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

void write_model(const std::string& dir, const model::ModelConfig& c, const nlohmann::json& training = nullptr) {
  const Exec exec(1);
  SmallModel s(c, f32_t, 8, exec);
  std::filesystem::create_directories(dir);
  nlohmann::json j = model::config_to_json(s.m->config);
  if (!training.is_null()) j["training"] = training;
  checkpoint::save_weights(dir, *s.m, j, f32_t);
}

infer::EngineOptions fp32() {
  infer::EngineOptions o;
  o.compute = "fp32", o.threads = 2;
  return o;
}

std::string text(size_t n) {
  std::string s(n, ' ');
  for (size_t i = 0; i < n; ++i) s[i] = static_cast<char>(Rng(4).bits(i) % 256);
  return s;
}

// Sum of -log p over the bytes of one document seen as window, from full logits: the last byte is only a label.
double nats(const infer::Engine& engine, const std::string& window) {
  std::vector<int32_t> ids;
  for (const char ch : window) ids.push_back(static_cast<unsigned char>(ch));
  double sum = 0;
  engine.full_logits({ids.data(), ids.size() - 1}, [&](int64_t t, std::span<const float> row) {
    double top = row[0], total = 0;
    for (float v : row) top = std::max(top, static_cast<double>(v));
    for (float v : row) total += std::exp(v - top);
    sum += std::log(total) + top - row[static_cast<size_t>(ids[static_cast<size_t>(t + 1)])];
  });
  return sum;
}

TEST(Likelihood, IsTheSumOverWindowsOfTheFullForward) {
  TempDir dir;
  write_model(dir / "m", wide_config("mhc"));
  const infer::Engine engine(dir / "m", fp32());
  const std::string t = text(100);
  const std::string path = dir.file("text", t);
  // Windows of 32 that each need their next byte: 3 of them; 96 predicted bytes.
  const auto r = eval::window_likelihood(engine, {path}, 32, false);
  EXPECT_EQ(r.tokens, 96);
  EXPECT_EQ(r.bytes, 96);
  double want = 0;
  for (size_t w = 0; w < 3; ++w) want += nats(engine, t.substr(w * 32, 33));
  EXPECT_NEAR(r.nats, want, 1e-5 * want);
  EXPECT_NEAR(r.nats_per_token(), want / 96, 1e-5 * want);
  EXPECT_EQ(r.nats_per_byte(), r.nats_per_token());
}

TEST(Likelihood, ValidationPartIsTheLastTwentieth) {
  TempDir dir;
  write_model(dir / "m", wide_config("plain"), {{"seq_len", 16}});
  const infer::Engine engine(dir / "m", fp32());
  const std::string t = text(2000);
  const auto r = eval::window_likelihood(engine, {dir.file("text", t)}, 0, true);  // seq_len of the training
  EXPECT_EQ(r.tokens, 96);  // 100 bytes: 6 windows of 16 with a byte after them
  double want = 0;
  for (size_t w = 0; w < 6; ++w) want += nats(engine, t.substr(1900 + w * 16, 17));
  EXPECT_NEAR(r.nats, want, 1e-5 * want);
}

TEST(Likelihood, DocumentsOfAFolderAreSeparate) {
  TempDir dir;
  write_model(dir / "m", wide_config("plain"));
  const infer::Engine engine(dir / "m", fp32());
  const std::string a = text(20), b = text(60).substr(20, 14);
  dir.file("docs/1", a);
  dir.file("docs/2", b);
  const auto r =
      eval::window_likelihood(engine, {dir / "docs"}, 33, false);  // one window over both: 33 tokens and the one after
  EXPECT_EQ(r.tokens, 19 + 13);
  const double want = nats(engine, a) + nats(engine, b);
  EXPECT_NEAR(r.nats, want, 1e-5 * want);
}

TEST(Likelihood, Refuses) {
  TempDir dir;
  write_model(dir / "m", wide_config("plain"));
  write_model(dir / "tokens", small_config());
  const infer::Engine engine(dir / "m", fp32()), no_bytes(dir / "tokens", fp32());
  const std::string path = dir.file("text", text(50));
  expect_error([&] { eval::window_likelihood(engine, {path}, 50, false); }, {"50 bytes", "seq_len 50", "51"});
  expect_error([&] { eval::window_likelihood(engine, {path}, 100000, false); }, {"100000", "1 to 512"});
  expect_error([&] { eval::window_likelihood(engine, {path}, -1, false); }, {"-1", "1 to 512"});
  expect_error([&] { eval::window_likelihood(engine, {dir / "absent"}, 16, false); }, {"absent", "no such file"});
  expect_error([&] { eval::window_likelihood(no_bytes, {path}, 16, false); }, {"23 tokens", "byte models"});
}

}  // namespace
}  // namespace birkhoff::test
