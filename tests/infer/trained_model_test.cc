// Real trained models (tests/golden/README.md): greedy continuations token for token, token losses and logits, through
// the cache and without, on every instruction set.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "infer/sampler.h"
#include "infer/session.h"
#include "io/json_file.h"
#include "support/golden.h"
#include "support/matrix.h"

namespace birkhoff::test {
namespace {

using infer::Engine;
using infer::Session;
using Rows = std::vector<std::vector<float>>;

// Our own, which read Shakespeare, and stories260K of BIRKHOFF_DATA. "" where that is not there.
std::string directory_of(const std::string& name) {
  if (name == "shakespeare") return committed_dir() + "/trained";
  const char* data = std::getenv("BIRKHOFF_DATA");
  return data ? std::string(data) + "/weights/" + name : "";
}

infer::EngineOptions fp32() {
  infer::EngineOptions o;
  o.compute = "fp32", o.threads = 2;
  return o;
}

Rows by_full_forward(const Engine& e, const std::vector<int32_t>& ids) {
  Rows rows;
  e.full_logits(ids, [&](int64_t, std::span<const float> row) { rows.emplace_back(row.begin(), row.end()); });
  return rows;
}
Rows by_cache(const Engine& e, const std::vector<int32_t>& ids) {
  Rows rows;
  Session session(e, static_cast<int64_t>(ids.size()));
  for (const int32_t id : ids) {
    const auto row = session.feed({&id, 1});
    rows.emplace_back(row.begin(), row.end());
  }
  return rows;
}

double token_loss(const std::vector<float>& logits, int32_t label) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float l : logits) sum += std::exp(l - most);
  return most + std::log(sum) - logits[static_cast<size_t>(label)];
}

class TrainedModel : public testing::TestWithParam<std::tuple<std::string, Isa>> {
 protected:
  void SetUp() override {
    directory = directory_of(std::get<0>(GetParam()));
    if (directory.empty()) GTEST_SKIP() << "BIRKHOFF_DATA, which holds weights/stories260K, is not set";
    golden = io::read_json(directory + "/golden.json");
    limit_isa(std::get<1>(GetParam()));
  }
  void TearDown() override { limit_isa(Isa::amx); }
  std::string directory;
  nlohmann::json golden;
};

TEST_P(TrainedModel, GreedyContinuationsTokenForToken) {
  const Engine engine(directory, fp32());
  ASSERT_EQ(golden["greedy"].size(), 5u);
  for (const auto& g : golden["greedy"]) {
    std::vector<int32_t> ids = g["prompt_ids"];
    const std::vector<int32_t> want = g["ids"];
    const size_t prompt = ids.size();
    infer::SamplerOptions greedy;
    std::vector<int32_t> buffer;
    greedy.temperature = 0;
    Session session(engine, static_cast<int64_t>(prompt + want.size()));
    auto logits = session.feed(ids);
    for (size_t i = 0; i < want.size(); ++i) {
      const int32_t id = infer::sample(logits, greedy, i, buffer);
      ASSERT_EQ(id, want[i]) << g["prompt"] << ", token " << i;
      ids.push_back(id);
      if (i + 1 < want.size()) logits = session.feed({&id, 1});
    }
    const Rows rows = by_full_forward(engine, ids);
    for (size_t i = 0; i < want.size(); ++i)
      ASSERT_EQ(infer::sample(rows[prompt - 1 + i], greedy, i, buffer), want[i])
          << g["prompt"] << ", token " << i << " without the cache";
  }
}

TEST_P(TrainedModel, TokenLossesAndLogits) {
  // 1e-5 is five units in the last place of fp32 at the largest of these losses, 30 nats. The reference carries 2e-6 of
  // its own.
  const double tolerance = 1e-5;
  const Engine engine(directory, fp32());
  for (const auto& forward : {by_full_forward, by_cache}) {
    for (const auto& g : golden["nll"]) {
      const std::vector<int32_t> ids = g["ids"];
      const std::vector<double> want = g["token_nll"];
      ASSERT_EQ(want.size() + 1, ids.size());
      const Rows rows = forward(engine, ids);
      for (size_t i = 0; i < want.size(); ++i)
        EXPECT_NEAR(token_loss(rows[i], ids[i + 1]), want[i], tolerance) << g["text"] << ", token " << i;
    }
    for (const auto& g : golden["logits"]) {
      const std::vector<float> last = forward(engine, g["ids"]).back();
      expect_close({last.begin(), last.end()}, g["last"], 1e-4, "logits");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, TrainedModel,
                         testing::Combine(testing::Values("shakespeare", "stories260K"),
                                          testing::ValuesIn(machine_isas())),
                         [](const auto& p) { return std::get<0>(p.param) + "_" + isa_name(std::get<1>(p.param)); });

}  // namespace
}  // namespace birkhoff::test
