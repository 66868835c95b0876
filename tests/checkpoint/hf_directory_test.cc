// Model directories: what is written is what is read, shards, types, and complaints that list everything at once.
#include "checkpoint/hf_directory.h"

#include <cstring>
#include <nlohmann/json.hpp>

#include "io/json_file.h"
#include "support/small_model.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

namespace fs = std::filesystem;
using io::TensorEntry;
using io::TensorType;

// Tensors of a file as an editable list that owns its bytes.
struct Editable {
  std::vector<TensorEntry> entries;
  std::vector<std::vector<std::byte>> memory;
  explicit Editable(const std::string& path) {
    const io::SafetensorsFile f(path);
    for (TensorEntry e : f.tensors()) {
      memory.emplace_back(e.data, e.data + e.bytes);
      e.data = memory.back().data();
      entries.push_back(e);
    }
    for (size_t i = 0; i < entries.size(); ++i) entries[i].data = memory[i].data();
  }
  size_t at(const std::string& name) const {
    for (size_t i = 0; i < entries.size(); ++i)
      if (entries[i].name == name) return i;
    throw std::runtime_error("no tensor " + name);
  }
  void remove(const std::string& name) { entries.erase(entries.begin() + static_cast<std::ptrdiff_t>(at(name))); }
  void convert(const std::string& name, TensorType type, const std::vector<std::byte>& bytes) {
    const size_t i = at(name);
    memory.push_back(bytes);
    entries[i].type = type, entries[i].data = memory.back().data(), entries[i].bytes = bytes.size();
  }
  void add(const std::string& name, std::vector<int64_t> shape) {
    TensorEntry e{name, TensorType::f32, std::move(shape), nullptr, 0};
    e.bytes = static_cast<size_t>(e.size()) * 4;
    memory.emplace_back(e.bytes);
    e.data = memory.back().data();
    entries.push_back(e);
  }
};

class Directory : public testing::Test {
 protected:
  Directory() : model(small_config("mhc"), f32_t, 3, one_thread()) {
    checkpoint::save_weights(dir.path(), *model.m, model::config_to_json(model.m->config), f32_t);
  }
  std::string weights() const { return dir / "model.safetensors"; }
  // Loads into a second model and returns its block.
  std::vector<float> load() {
    SmallModel other(model.m->config, f32_t, 99, one_thread());
    checkpoint::load_weights(dir.path(), *other.m);
    return {other.m->block, other.m->block + other.elements};
  }
  std::vector<float> mine() const { return {model.m->block, model.m->block + model.elements}; }
  void expect_refused(const std::vector<std::string>& parts) {
    expect_error([&] { load(); }, parts);
  }

  TempDir dir;
  SmallModel model;
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0;
}

TEST_F(Directory, Fp32IsBitExact) {
  model.m->block[0] = -0.0f;
  model.m->block[1] = 1e-42f;  // subnormal
  model.m->block[2] = std::nanf("");
  checkpoint::save_weights(dir.path(), *model.m, model::config_to_json(model.m->config), f32_t);
  EXPECT_TRUE(same_bits(load(), mine()));
}

TEST_F(Directory, ConfigDescribesTheModel) {
  const model::ModelConfig c = model::config_from_json(checkpoint::read_config_json(dir.path()));
  nlohmann::json want = model::config_to_json(model.m->config);
  want["torch_dtype"] = "float32";  // what the weights beside it are
  EXPECT_EQ(model::config_to_json(c), want);
}

TEST_F(Directory, Bf16RoundsProductsAndKeepsTheRest) {
  checkpoint::save_weights(dir.path(), *model.m, model::config_to_json(model.m->config), bf16_t);
  const std::vector<float> got = load(), had = mine();
  const io::SafetensorsFile f(weights());
  for (const auto& p : model.m->parameters) {
    const bool exact = p.role == layers::Role::router_bias || p.role == layers::Role::hc_fn ||
                       p.role == layers::Role::hc_scale || p.role == layers::Role::hc_base;
    EXPECT_EQ(f.find(p.name)->type, exact ? TensorType::f32 : TensorType::bf16) << p.name;
    for (int64_t i = p.offset; i < p.offset + p.size(); ++i) {
      const float v = had[static_cast<size_t>(i)];
      ASSERT_EQ(got[static_cast<size_t>(i)], exact ? v : to_float(to_bf16(v))) << p.name;
    }
  }
}

TEST_F(Directory, Fp16IsWidened) {
  Editable e(weights());
  const std::vector<std::pair<uint16_t, float>> values = {
      {0x3c00, 1.f},      {0xc000, -2.f},          {0x0000, 0.f},     {0x8000, -0.f},
      {0x0001, 0x1p-24f}, {0x83ff, -0x1.ff8p-15f}, {0x7bff, 65504.f}, {0x3555, 0.333251953125f},
      {0x7c00, INFINITY}, {0xfc00, -INFINITY},     {0x0400, 0x1p-14f}};
  std::vector<std::byte> bytes(20 * 2);
  for (size_t i = 0; i < values.size(); ++i) std::memcpy(bytes.data() + 2 * i, &values[i].first, 2);
  e.convert("model.norm.weight", TensorType::f16, bytes);
  io::write_safetensors(weights(), e.entries);
  const auto got = load();
  for (const auto& p : model.m->parameters) {
    if (p.name != "model.norm.weight") continue;
    for (size_t i = 0; i < values.size(); ++i)
      EXPECT_EQ(std::memcmp(&got[static_cast<size_t>(p.offset) + i], &values[i].second, 4), 0) << i;
  }
}

// Nothing in the format promises that a tensor starts at a multiple of its element size.
TEST_F(Directory, UnalignedTensors) {
  checkpoint::save_weights(dir.path(), *model.m, model::config_to_json(model.m->config), bf16_t);
  const auto want = load();
  std::string file = read_file(weights());
  uint64_t header = 0;
  std::memcpy(&header, file.data(), 8);
  ++header;
  std::memcpy(file.data(), &header, 8);
  file.insert(8 + header - 1, " ");
  dir.file("model.safetensors", file);
  EXPECT_TRUE(same_bits(load(), want));
}

TEST_F(Directory, Shards) {
  const Editable e(weights());
  const auto split = e.entries.begin() + static_cast<std::ptrdiff_t>(e.entries.size() / 2);
  const std::vector<TensorEntry> first(e.entries.begin(), split), second(split, e.entries.end());
  fs::remove(weights());
  nlohmann::json map;
  for (const auto& t : first) map[t.name] = "a.safetensors";
  for (const auto& t : second) map[t.name] = "b.safetensors";
  io::write_safetensors(dir / "a.safetensors", first);
  expect_refused({"no model.safetensors"});
  io::write_json(dir / "model.safetensors.index.json", {{"weight_map", map}});
  expect_refused({"b.safetensors", "No such file"});
  io::write_safetensors(dir / "b.safetensors", second);
  EXPECT_TRUE(same_bits(load(), mine()));

  std::vector<TensorEntry> repeated = second;
  repeated.push_back(first.front());
  io::write_safetensors(dir / "b.safetensors", repeated);
  expect_refused({"duplicate " + first.front().name});
  io::write_json(dir / "model.safetensors.index.json", {{"weight_map", {{"x", "../model.safetensors"}}}});
  expect_refused({"x is mapped to", "../model.safetensors"});
  io::write_json(dir / "model.safetensors.index.json", {{"weight_map", {{"x", 3}}}});
  expect_refused({"x is mapped to 3"});
  for (const auto& value : {nlohmann::json(nullptr), nlohmann::json({"a.safetensors"}),
                            nlohmann::json({{"y", "a.safetensors"}}), nlohmann::json("..")}) {
    io::write_json(dir / "model.safetensors.index.json", {{"weight_map", {{"x", value}}}});
    expect_refused({"x is mapped to"});
  }
  for (const auto& index :
       {nlohmann::json({{"weights", 1}}), nlohmann::json({{"weight_map", 3}}), nlohmann::json({{"weight_map", {"a"}}}),
        nlohmann::json::array(), nlohmann::json(1), nlohmann::json({{"weight_map", nlohmann::json::object()}}),
        nlohmann::json({{"metadata", {{"weight_map", {{"x", "a.safetensors"}}}}}})}) {
    io::write_json(dir / "model.safetensors.index.json", index);
    expect_refused({"no weight_map"});
  }
  std::ofstream(dir / "model.safetensors.index.json") << "{\n\"weight_map\": {\"x\": \"a.safetensors\",}}";
  expect_refused({"model.safetensors.index.json:2:37", "not JSON"});
}

TEST_F(Directory, ListsEverythingThatDoesNotMatch) {
  Editable e(weights());
  e.remove("model.norm.weight");
  e.add("model.layers.0.surprise", {2, 3});
  e.entries[e.at("model.embed_tokens.weight")].shape = {20, 23};
  e.convert("lm_head.weight", TensorType::i32, std::vector<std::byte>(23 * 20 * 4));
  io::write_safetensors(weights(), e.entries);
  expect_refused({"missing   model.norm.weight, expected [20]", "unknown   model.layers.0.surprise [2,3]",
                  "shape     model.embed_tokens.weight: expected [23,20], file has [20,23]",
                  "type      lm_head.weight: F64, F32, BF16, F16, F8_E4M3, F8_E5M2 or FP4 in I8 with scales expected, "
                  "file has I32"});
}

TEST_F(Directory, HarmlessExtrasAreIgnored) {
  Editable e(weights());
  e.add("model.layers.0.self_attn.rotary_emb.inv_freq", {2});
  e.add("model.layers.1.mlp.shared_experts.nothing.weight", {0, 20});  // written for modules without a width
  e.add("model.layers.2.enorm.weight", {20});                          // behind the last layer: multi-token prediction
  io::write_safetensors(weights(), e.entries);
  EXPECT_TRUE(same_bits(load(), mine()));
  e.add("model.layers.1.enorm.weight", {20});
  io::write_safetensors(weights(), e.entries);
  expect_refused({"unknown   model.layers.1.enorm.weight"});
}

// A model has the biases of its type or is refused, whichever way they differ.
TEST(QwenDirectory, BiasesAreThoseOfTheType) {
  const TempDir dir;
  const SmallModel m(small_qwen_config(true, false), f32_t, 3, one_thread());
  checkpoint::save_weights(dir.path(), *m.m, model::config_to_json(m.m->config), f32_t);
  const std::string file = dir / "model.safetensors";
  const auto refused = [&](const model::ModelConfig& c, const std::vector<std::string>& parts) {
    const SmallModel other(c, f32_t, 4, one_thread());
    expect_error([&] { checkpoint::load_weights(dir.path(), *other.m); }, parts);
  };
  model::ModelConfig llama = m.m->config;
  llama.model_type = "llama", llama.qkv_bias = false;
  refused(llama, {"unknown   model.layers.0.self_attn.k_proj.bias [12]", "model.layers.1.self_attn.v_proj.bias"});
  refused(small_qwen_config(false, true), {"missing   model.layers.0.self_attn.q_norm.weight, expected [6]",
                                           "unknown   model.layers.0.self_attn.q_proj.bias [24]"});
  Editable e(file);
  e.remove("model.layers.1.self_attn.v_proj.bias");
  e.add("model.layers.0.self_attn.o_proj.bias", {20});
  io::write_safetensors(file, e.entries);
  refused(m.m->config, {"missing   model.layers.1.self_attn.v_proj.bias, expected [12]",
                        "unknown   model.layers.0.self_attn.o_proj.bias [20]"});
}

TEST(TiedDirectory, TheHeadIsTheEmbedding) {
  TempDir dir;
  model::ModelConfig c = small_config();
  c.tie_word_embeddings = true;
  SmallModel m(c, f32_t, 3, one_thread()), other(c, f32_t, 4, one_thread());
  checkpoint::save_weights(dir.path(), *m.m, model::config_to_json(m.m->config), f32_t);
  EXPECT_EQ(io::SafetensorsFile(dir / "model.safetensors").find("lm_head.weight"), nullptr);
  Editable e(dir / "model.safetensors");
  TensorEntry head = e.entries[e.at("model.embed_tokens.weight")];
  head.name = "lm_head.weight";
  e.entries.push_back(head);  // some files repeat it
  io::write_safetensors(dir / "model.safetensors", e.entries);
  checkpoint::load_weights(dir.path(), *other.m);
  EXPECT_EQ(std::memcmp(other.m->block, m.m->block, static_cast<size_t>(m.elements) * 4), 0);
  EXPECT_EQ(other.m->weights.head.w.data, other.m->weights.embed.data);
  e.convert("lm_head.weight", TensorType::f32, std::vector<std::byte>(23 * 20 * 4));
  io::write_safetensors(dir / "model.safetensors", e.entries);
  expect_error([&] { checkpoint::load_weights(dir.path(), *other.m); },
               {"lm_head.weight differs from model.embed_tokens.weight", "tie_word_embeddings"});
}

}  // namespace
}  // namespace birkhoff::test
