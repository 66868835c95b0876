// Generation through the cache against the full forward, bit for bit, and what the engine refuses.
#include <cstring>
#include <nlohmann/json.hpp>

#include "checkpoint/tensor_map.h"
#include "core/process.h"
#include "infer/sampler.h"
#include "infer/session.h"
#include "io/json_file.h"
#include "support/model_directory.h"
#include "support/sanitized.h"
#include "support/small_model.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

using infer::Engine;
using infer::Session;
using model::LatentAttention;

infer::EngineOptions options_of(const std::string& compute, int threads = 2) {
  infer::EngineOptions o;
  o.compute = compute, o.threads = threads, o.max_positions = 400;
  return o;
}

std::vector<std::vector<float>> full_logits(const Engine& engine, std::span<const int32_t> ids) {
  std::vector<std::vector<float>> rows;
  engine.full_logits(ids, [&](int64_t t, std::span<const float> row) {
    EXPECT_EQ(t, static_cast<int64_t>(rows.size()));
    rows.emplace_back(row.begin(), row.end());
  });
  return rows;
}

bool same_bits(std::span<const float> a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

struct Kind {
  const char* name;
  model::ModelConfig config;
};
std::vector<Kind> kinds() {
  model::ModelConfig direct = small_config("plain");
  direct.q_lora_rank = 0;
  model::ModelConfig sparse = wide_config("plain");
  sparse.index_n_heads = 3, sparse.index_head_dim = 16, sparse.index_topk = 20;
  return {{"sparse_mla", sparse},
          {"mla", wide_config("plain")},
          {"mla_without_q_lora", direct},
          {"gqa", small_config("plain", 1, false)},
          {"gqa_bias_norm", small_qwen_config()},
          {"mhc", wide_config("mhc")},
          {"mhc_lite", with_form(small_config("mhc", 3), "lite")},
          {"mhc_kron", with_form(small_config("mhc"), "kron")},
          {"hc_gqa", small_config("hc", 3, false)},
          {"v4", wide_v4_config()}};
}

// Feeds ids in pieces; check(last token of the piece, logits).
template <class F>
void feed_in_pieces(Session& session, std::span<const int32_t> ids, size_t piece, F&& check) {
  for (size_t at = 0; at < ids.size(); at += piece) {
    const size_t n = std::min(piece, ids.size() - at);
    const auto got = session.feed(ids.subspan(at, n));
    ASSERT_EQ(session.length(), static_cast<int64_t>(at + n));
    check(at + n - 1, got);
  }
}

class Cache : public testing::TestWithParam<std::tuple<size_t, std::string>> {};

TEST_P(Cache, AnyPiecesGiveTheBitsOfTheFullForward) {
  const auto& [index, compute] = GetParam();
  const Kind kind = kinds()[index];
  TempDir dir;
  write_model(dir.path(), kind.config);
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    SCOPED_TRACE(isa_name(isa));
    const Engine engine(dir.path(), options_of(compute));
    const auto ids = random_ids(137, kind.config.vocab_size);
    const auto want = full_logits(engine, ids);
    ASSERT_EQ(want.size(), ids.size());
    for (size_t piece : sanitized() ? std::vector<size_t>{7, 137} : std::vector<size_t>{1, 7, 64, 137}) {
      Session session(engine, 200);
      feed_in_pieces(session, ids, piece, [&](size_t t, std::span<const float> got) {
        ASSERT_TRUE(same_bits(got, want[t])) << "pieces of " << piece << ", token " << t;
      });
    }
  }
}

// Kinds with latent attention, in fp32: in bf16 a rounding may choose another expert, or another key.
class AbsorbedCache : public testing::TestWithParam<size_t> {};
std::vector<size_t> kinds_with_latents() {
  std::vector<size_t> found;
  for (size_t i = 0; i < kinds().size(); ++i)
    if (kinds()[i].config.kv_lora_rank > 0) found.push_back(i);
  return found;
}
INSTANTIATE_TEST_SUITE_P(Kinds, AbsorbedCache, testing::ValuesIn(kinds_with_latents()),
                         [](const auto& p) { return std::string(kinds()[p.param].name); });

TEST_P(AbsorbedCache, GivesTheValuesOfTheFullForward) {
  const Kind kind = kinds()[GetParam()];
  TempDir dir;
  write_model(dir.path(), kind.config);
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    SCOPED_TRACE(isa_name(isa));
    infer::EngineOptions options = options_of("fp32");
    options.latent_attention = LatentAttention::absorbed;
    const Engine engine(dir.path(), options);
    const auto ids = random_ids(137, kind.config.vocab_size);
    const auto want = full_logits(engine, ids);
    for (size_t piece : sanitized() ? std::vector<size_t>{7, 64} : std::vector<size_t>{1, 7, 64}) {
      Session session(engine, 200);
      feed_in_pieces(session, ids, piece, [&](size_t t, std::span<const float> got) {
        for (size_t v = 0; v < want[t].size(); ++v)
          ASSERT_NEAR(got[v], want[t][v], 1e-4) << "pieces of " << piece << ", token " << t;
      });
    }
  }
}

TEST_P(Cache, GreedyGenerationIsTheArgmaxOfTheFullForward) {
  const auto& [index, compute] = GetParam();
  const Kind kind = kinds()[index];
  TempDir dir;
  write_model(dir.path(), kind.config);
  const Engine engine(dir.path(), options_of(compute)), one(dir.path(), options_of(compute, 1));
  infer::SamplerOptions greedy;
  greedy.temperature = 0;
  std::vector<int32_t> buffer, ids = random_ids(5, kind.config.vocab_size);
  Session session(engine, 40);
  auto logits = session.feed(ids);
  for (int i = 0; i < 20; ++i) {
    const auto full = full_logits(one, ids);
    ASSERT_TRUE(same_bits(logits, full.back())) << "token " << i;
    ids.push_back(infer::sample(logits, greedy, static_cast<uint64_t>(i), buffer));
    ASSERT_EQ(ids.back(), infer::sample(full.back(), greedy, 0, buffer));
    logits = session.feed({&ids.back(), 1});
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Cache,
                         testing::Combine(testing::Range<size_t>(0, kinds().size()), testing::Values("fp32", "bf16")),
                         [](const auto& p) {
                           return std::string(kinds()[std::get<0>(p.param)].name) + "_" + std::get<1>(p.param);
                         });

// The keys of a whole text stand in its tape, those of a session in its cache: with wide heads beside small networks
// they are what is largest.
TEST(Engine, LongTextsOfModelsThatAreMostlyAttention) {
  for (const bool latent : {false, true}) {
    model::ModelConfig c = small_config("plain", 1, latent);
    c.num_attention_heads = 8, c.intermediate_size = 16, c.first_k_dense_replace = 2, c.max_position_embeddings = 2048;
    if (latent)
      c.kv_lora_rank = 256, c.q_lora_rank = 0;
    else
      c.num_key_value_heads = 8, c.head_dim = 64;
    TempDir dir;
    write_model(dir.path(), c);
    infer::EngineOptions options = options_of("fp32");
    options.max_positions = 2048;
    const Engine engine(dir.path(), options);
    for (const size_t tokens : {200, 600, 1500}) {
      const auto ids = random_ids(tokens, c.vocab_size);
      Session session(engine, static_cast<int64_t>(tokens));
      EXPECT_TRUE(same_bits(session.feed(ids), full_logits(engine, ids).back())) << tokens;
    }
  }
}

TEST(Session, LongPromptsAreFedInPartsOfItsOwn) {
  TempDir dir;
  write_model(dir.path(), small_config("mhc"));
  const Engine engine(dir.path(), options_of("bf16"));
  const auto ids = random_ids(390, 23);
  Session session(engine, 400);
  EXPECT_TRUE(same_bits(session.feed(ids), full_logits(engine, ids).back()));
}

TEST(Session, SessionsDoNotDisturbEachOther) {
  TempDir dir;
  write_model(dir.path(), small_config("mhc"));
  const Engine engine(dir.path(), options_of("fp32"));
  const auto ids = random_ids(60, 23);
  const auto want = full_logits(engine, ids);
  const std::vector<int32_t> other(ids.rbegin(), ids.rend());
  const auto want_other = full_logits(engine, other);
  Session a(engine, 60), b(engine, 300);
  for (size_t t = 0; t < ids.size(); ++t) {
    ASSERT_TRUE(same_bits(a.feed({&ids[t], 1}), want[t]));
    ASSERT_TRUE(same_bits(b.feed({&other[t], 1}), want_other[t]));
  }
}

TEST(Session, Refuses) {
  TempDir dir;
  write_model(dir.path(), small_config());
  const Engine engine(dir.path(), options_of("fp32"));
  expect_error([&] { Session(engine, 0); }, {"capacity 0", "1 to 400"});
  expect_error([&] { Session(engine, 401); }, {"capacity 401", "1 to 400"});
  Session s(engine, 4);
  const std::vector<int32_t> five{1, 2, 3, 4, 5}, bad{1, 23}, negative{-1};
  expect_error([&] { s.feed(five); }, {"0 + 5", "capacity 4"});
  expect_error([&] { s.feed({}); }, {"no tokens"});
  expect_error([&] { s.feed(bad); }, {"token 1 is 23", "0 to 22"});
  expect_error([&] { s.feed(negative); }, {"token 0 is -1", "0 to 22"});
  EXPECT_EQ(s.length(), 0) << "a refused feed leaves nothing behind";
  const auto want = full_logits(engine, {five.data(), 4});
  EXPECT_TRUE(same_bits(s.feed({five.data(), 4}), want.back()));
  expect_error([&] { s.feed({five.data(), 1}); }, {"4 + 1", "capacity 4"});
  const auto long_ids = random_ids(401, 23);
  expect_error([&] { engine.full_logits(long_ids, [](int64_t, std::span<const float>) {}); }, {"401 tokens", "400"});
  engine.full_logits({}, [](int64_t, std::span<const float>) { ADD_FAILURE() << "no rows of no tokens"; });
}

TEST(Engine, ComputeTypeFollowsTheDirectory) {
  TempDir dir;
  write_model(dir.path(), small_config());
  const auto compute = [&](const nlohmann::json& more, const std::string& asked = "") {
    nlohmann::json j = checkpoint::read_config_json(dir.path());
    for (const char* key : {"training", "torch_dtype", "dtype"}) j.erase(key);
    j.update(more);
    io::write_json(dir / "config.json", j);
    infer::EngineOptions o = options_of(asked);
    return Engine(dir.path(), o).model().compute;
  };
  EXPECT_EQ(compute(nlohmann::json::object()), DType::bf16);
  EXPECT_EQ(compute({{"training", {{"dtype", "fp32"}}}}), DType::f32);
  EXPECT_EQ(compute({{"training", {{"dtype", "bf16"}}}}), DType::bf16);
  EXPECT_EQ(compute({{"torch_dtype", "float32"}}), DType::f32);
  EXPECT_EQ(compute({{"dtype", "float32"}}), DType::f32);
  EXPECT_EQ(compute({{"torch_dtype", "bfloat16"}}), DType::bf16);
  EXPECT_EQ(compute({{"training", {{"dtype", "fp32"}}}}, "bf16"), DType::bf16);
  expect_error([&] { compute(nlohmann::json::object(), "fp16"); }, {"fp16", "bf16, fp32"}, ExitCode::usage);
}

TEST(Engine, RefusesWhatIsNoModel) {
  TempDir dir;
  expect_error([&] { Engine(dir / "absent", options_of("")); }, {"absent", "does not exist"});
  dir.file("file", "x");
  expect_error([&] { Engine(dir / "file", options_of("")); }, {"is not a directory"});
  std::filesystem::create_directories(dir / "empty");
  expect_error([&] { Engine(dir / "empty", options_of("")); }, {"no config.json"});
  std::filesystem::create_directories(dir / "run/checkpoints");
  expect_error([&] { Engine(dir / "run", options_of("")); }, {"no finished checkpoint"});
  write_model(dir / "model", small_config());
  std::filesystem::remove(dir / "model/model.safetensors");
  expect_error([&] { Engine(dir / "model", options_of("")); }, {"no model.safetensors"});
  dir.file("model/config.json", "{\"model_type\": \"birkhof\"}");
  expect_error([&] { Engine(dir / "model", options_of("")); }, {"model_type", "birkhof", "did you mean \"birkhoff\""});
  dir.file("model/config.json", "{");
  expect_error([&] { Engine(dir / "model", options_of("")); }, {"config.json:1:", "not JSON"});
}

// A file of the size of the machine's memory, of which the disk holds a page: refused by its length, before anything is
// read.
TEST(Engine, RefusesWhatTheMachineCannotHold) {
  TempDir dir;
  model::ModelConfig c = small_config();
  write_model(dir / "model", c);
  const size_t have = machine_memory_bytes();
  c.hidden_size = 1024 * (1 + static_cast<int64_t>(have >> 35));
  c.vocab_size = static_cast<int64_t>(have) / (2 * c.hidden_size);  // embedding and head: twice the memory
  nlohmann::json header, config = model::config_to_json(c);
  size_t data = 0;
  const model::Weights shapes(c);
  for (const model::ParameterInfo& p : model::list_parameters(shapes)) {
    const size_t bytes = 2 * static_cast<size_t>(p.size());
    const std::vector<int64_t> shape = checkpoint::file_shape(p);
    header[p.name] = {{"dtype", "BF16"}, {"shape", shape}, {"data_offsets", {data, data + bytes}}};
    data += bytes;
  }
  const std::string text = header.dump();
  const uint64_t length = text.size();
  std::string start(reinterpret_cast<const char*>(&length), 8);
  dir.file("model/config.json", config.dump());
  dir.file("model/model.safetensors", start + text);
  std::error_code ec;
  std::filesystem::resize_file(dir / "model/model.safetensors", start.size() + text.size() + data, ec);
  if (ec) GTEST_SKIP() << "no sparse file of this size: " << ec.message();
  int64_t read = 0;  // by products and the embedding: all but norms
  for (const model::ParameterInfo& p : model::list_parameters(shapes))
    if (p.role != layers::Role::norm && p.role != layers::Role::bias) read += 2 * p.size();
  expect_error([&] { Engine(dir / "model", options_of("")); },
               {"weights of " + std::to_string(read >> 20) + " MiB",
                "this machine has " + std::to_string(have >> 20) + " MiB", "smaller number format"});
}

}  // namespace
}  // namespace birkhoff::test
