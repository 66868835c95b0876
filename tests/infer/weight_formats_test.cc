// What a model's matrices become in memory, and how much of them a token reads: counted by hand.
#include <cmath>

#include "infer/engine.h"
#include "model/traffic.h"
#include "support/model_directory.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

using ops::WeightFormat;

// Rows are filled up to 16; 4 or 8 bits a weight, and 16 for every 32 of them.
int64_t blocks(int64_t rows, int64_t cols, int64_t bits) {
  return (rows + 15) / 16 * 16 * (cols * bits / 8 + cols / 32 * 2);
}

class WeightFormats : public testing::Test {
 protected:
  // Of 64 inputs everywhere but behind attention (12) and in networks (96, and 32 of experts).
  WeightFormats() {
    model::ModelConfig c = small_config("plain", 1, false);
    c.hidden_size = 64, c.intermediate_size = 96, c.moe_intermediate_size = 32;
    write_model(dir.path(), c);
  }
  int64_t bytes(WeightFormat matrices, WeightFormat head, const std::string& dtype = "bf16") const {
    infer::EngineOptions o;
    o.compute = dtype;
    o.weights = {matrices, head};
    return model::weight_traffic(infer::Engine(dir.path(), o).model()).per_token();
  }
  TempDir dir;
  // fp32 of the file: attention's output of 12 inputs, which are no blocks, and the router, which is never quantised.
  static constexpr int64_t kStays = 2 * 64 * 12 * 4 + 4 * 64 * 4;
  static int64_t quantised(int64_t bits) {
    const int64_t attention = blocks(24, 64, bits), dense = blocks(192, 64, bits) + blocks(64, 96, bits);
    const int64_t expert = blocks(64, 64, bits) + blocks(64, 32, bits);  // 2 of 4, and a shared one
    return 2 * attention + dense + 3 * expert;
  }
};

TEST_F(WeightFormats, BytesOfATokenAreThoseOfItsMatrices) {
  const int64_t fp32 = 4 * (2 * 24 * 64 + 192 * 64 + 64 * 96 + 3 * (64 * 64 + 64 * 32));
  EXPECT_EQ(bytes(WeightFormat::stored, WeightFormat::stored), kStays + fp32 + 23 * 64 * 4);
  EXPECT_EQ(bytes(WeightFormat::automatic, WeightFormat::automatic), kStays + fp32 + 23 * 64 * 4);
  EXPECT_EQ(bytes(WeightFormat::q8, WeightFormat::q8), kStays + quantised(8) + blocks(23, 64, 8));
  EXPECT_EQ(bytes(WeightFormat::q4, WeightFormat::q8), kStays + quantised(4) + blocks(23, 64, 8));
  EXPECT_EQ(bytes(WeightFormat::q4, WeightFormat::stored), kStays + quantised(4) + 23 * 64 * 4);
}

// What stays in memory of the file: not what was quantised.
TEST_F(WeightFormats, BytesThatAreReadInPlace) {
  const auto in_place = [&](WeightFormat f) {
    infer::EngineOptions o;
    o.weights = {f, f};
    const infer::Engine engine(dir.path(), o);
    int64_t matrices = 0;
    for (const model::ParameterInfo& p : engine.model().parameters) matrices += p.rows > 1 ? p.size() * 4 : 0;
    return std::pair(engine.model().read_in_place, matrices);
  };
  const auto [stored, matrices] = in_place(WeightFormat::stored);
  EXPECT_EQ(stored, matrices);
  EXPECT_EQ(in_place(WeightFormat::q8).first, kStays + 23 * 64 * 4);  // and the embedding
}

}  // namespace
}  // namespace birkhoff::test
