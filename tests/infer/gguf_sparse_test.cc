// V3.2 and V4 of the reference set, written as GGUF files and opened again: the bits of the directory.
#include "infer/session.h"
#include "support/golden.h"
#include "support/matrix.h"
#include "support/model_directory.h"
#include "support/temp_dir.h"
#include "support/to_gguf.h"

namespace birkhoff::test {
namespace {

using infer::Engine;
using ops::StoredType;

// Logits after a prompt and after every one of the tokens that follow it.
std::vector<float> logits_of_session(const std::string& path, const char* compute, ops::WeightFormat weights) {
  infer::EngineOptions o;
  o.compute = compute, o.threads = 2, o.max_positions = 96;
  o.weights.matrices = o.weights.head = weights;
  const Engine engine(path, o);
  const std::vector<int32_t> ids = random_ids(64, engine.model().config.vocab_size);
  infer::Session session(engine, 64);
  std::vector<float> got;
  const auto keep = [&](std::span<const float> row) { got.insert(got.end(), row.begin(), row.end()); };
  keep(session.feed({ids.data(), 40}));
  for (size_t i = 40; i < ids.size(); ++i) keep(session.feed({&ids[i], 1}));
  return got;
}

class GgufSparse : public testing::TestWithParam<const char*> {};

TEST_P(GgufSparse, BitsOfTheDirectory) {
  const std::string directory = committed_dir() + "/cases/" + GetParam();
  TempDir dir;
  to_gguf(directory, dir / "f32.gguf", StoredType::f32, StoredType::f32);
  using Format = ops::WeightFormat;
  for (const char* compute : {"fp32", "bf16"})
    EXPECT_EQ(logits_of_session(dir / "f32.gguf", compute, Format::stored),
              logits_of_session(directory, compute, Format::stored))
        << compute;
  to_gguf(dir / "f32.gguf", dir / "again.gguf", StoredType::f32, StoredType::f32);
  EXPECT_TRUE(read_file(dir / "f32.gguf") == read_file(dir / "again.gguf"));
  // Blocks of 8 bits are those that opening with q8 makes, but for keys of latent attention.
  if (std::string(GetParam()) == "deepseek_v32") return;
  to_gguf(directory, dir / "q8.gguf", StoredType::q8_0, StoredType::q8_0);
  EXPECT_EQ(logits_of_session(dir / "q8.gguf", "bf16", Format::automatic),
            logits_of_session(directory, "bf16", Format::q8));
}
INSTANTIATE_TEST_SUITE_P(Cases, GgufSparse, testing::Values("deepseek_v32", "deepseek_v4"));

}  // namespace
}  // namespace birkhoff::test
