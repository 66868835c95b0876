// What is written back: FP8 blocks, bytes of what has not changed, shards, tensors that are no parameter.
#include "checkpoint/save_model.h"

#include <cstring>

#include "checkpoint/fp8_blocks.h"
#include "checkpoint/hf_directory.h"
#include "io/json_file.h"
#include "reference/stored.h"
#include "support/small_model.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

namespace fs = std::filesystem;
using checkpoint::SaveOptions;
using checkpoint::SaveType;
using io::TensorEntry;
using io::TensorType;

model::ModelConfig v3_config() {
  model::ModelConfig c = small_config();
  c.model_type = "deepseek_v3";
  c.hidden_size = 140, c.kv_lora_rank = 130, c.q_lora_rank = 20;  // partial blocks in both directions
  return c;
}

struct Saved {
  TempDir dir;
  SmallModel model;
  explicit Saved(const model::ModelConfig& c, uint64_t seed = 5) : model(c, f32_t, seed, one_thread()) {}
  nlohmann::json config() const { return model::config_to_json(model.m->config); }
  checkpoint::RowReader rows() const {
    return [this](size_t i, int64_t first, int64_t count, Mat out) {
      const model::ParameterInfo& p = model.m->parameters[i];
      std::memcpy(out.f32(), model.m->block + p.offset + first * p.cols, static_cast<size_t>(count * p.cols) * 4);
    };
  }
  void save(const std::string& to, const SaveOptions& o) const {
    checkpoint::save_model(to, model.m->config, model.m->parameters, rows(), config(), o);
  }
  std::vector<float> block() const { return {model.m->block, model.m->block + model.elements}; }
};

std::vector<float> load(const std::string& dir, const model::ModelConfig& c) {
  SmallModel other(c, f32_t, 99, one_thread());
  checkpoint::load_weights(dir, *other.m);
  return {other.m->block, other.m->block + other.elements};
}

SaveOptions options(SaveType type) {
  SaveOptions o;
  o.type = type;
  return o;
}

TEST(Fp8Codes, EveryCodeIsItsOwnNearest) {
  for (uint32_t code = 0; code < 256; ++code) {
    if ((code & 0x7f) == 0x7f) continue;
    EXPECT_EQ(checkpoint::to_e4m3(static_cast<float>(reference::f8_e4m3(code))), code);
  }
  EXPECT_EQ(checkpoint::to_e4m3(1e9f), 0x7e);
  EXPECT_EQ(checkpoint::to_e4m3(-INFINITY), 0xfe);
  EXPECT_EQ(checkpoint::to_e4m3(std::nanf("")) & 0x7f, 0x7f);
}

TEST(Fp8Codes, TiesGoToEvenCodesAndTheRestToTheNearest) {
  for (uint32_t code = 0; code + 1 < 0x7f; ++code) {
    const double low = reference::f8_e4m3(code), high = reference::f8_e4m3(code + 1), middle = (low + high) / 2;
    const float at = static_cast<float>(middle);  // exact: five significant bits
    EXPECT_EQ(checkpoint::to_e4m3(at), code % 2 ? code + 1 : code);
    EXPECT_EQ(checkpoint::to_e4m3(-at), 0x80 | (code % 2 ? code + 1 : code));
    EXPECT_EQ(checkpoint::to_e4m3(std::nextafter(at, 0.f)), code);
    EXPECT_EQ(checkpoint::to_e4m3(std::nextafter(at, 1e9f)), code + 1);
  }
}

TEST(SaveModel, Fp8BlocksAreWithinHalfAStep) {
  const Saved s(v3_config());
  s.save(s.dir.path(), options(SaveType::fp8));
  const std::vector<float> got = load(s.dir.path(), s.model.m->config), had = s.block();
  const io::SafetensorsFile f(s.dir / "model.safetensors");
  for (const auto& p : s.model.m->parameters) {
    const bool linear = p.role == layers::Role::matrix || p.role == layers::Role::output_projection;
    const TensorEntry* scale = f.find(p.name + "_scale_inv");
    EXPECT_EQ(f.find(p.name)->type, linear                                ? TensorType::f8_e4m3
                                    : p.role == layers::Role::router_bias ? TensorType::f32
                                                                          : TensorType::bf16)
        << p.name;
    ASSERT_EQ(scale != nullptr, linear) << p.name;
    if (!linear) continue;
    EXPECT_EQ(scale->shape, (std::vector<int64_t>{(p.rows + 127) / 128, (p.cols + 127) / 128}));
    for (int64_t r = 0; r < p.rows; ++r) {
      for (int64_t c = 0; c < p.cols; ++c) {
        const auto at = static_cast<size_t>(p.offset + r * p.cols + c);
        const float factor = scale->as<float>()[r / 128 * scale->shape[1] + c / 128];
        const float limit = std::max(std::abs(had[at]) / 16, factor * 0x1p-10f) * 1.0001f;
        ASSERT_NEAR(got[at], had[at], limit) << p.name << " " << r << "," << c;
      }
    }
  }
  const nlohmann::json config = io::read_json(s.dir / "config.json");
  EXPECT_EQ(config["quantization_config"]["weight_block_size"], nlohmann::json({128, 128}));
  EXPECT_EQ(config["torch_dtype"], "bfloat16");
}

// As released: every tensor of Qwen in one type, biases of one dimension.
TEST(SaveModel, BiasesAreWrittenAsWeights) {
  for (const bool norm : {false, true}) {
    const Saved s(small_qwen_config(!norm, norm));
    s.save(s.dir.path(), options(SaveType::bf16));
    const io::SafetensorsFile f(s.dir / "model.safetensors");
    EXPECT_EQ(f.tensors().size(), 2u * (norm ? 11 : 12) + 3);
    for (const TensorEntry& e : f.tensors()) EXPECT_EQ(e.type, TensorType::bf16) << e.name;
    const char* name = norm ? "model.layers.1.self_attn.k_norm.weight" : "model.layers.1.self_attn.k_proj.bias";
    EXPECT_EQ(f.find(name)->shape, (std::vector<int64_t>{norm ? 6 : 12}));
    std::vector<float> want = s.block();
    for (float& v : want) v = to_float(to_bf16(v));
    const nlohmann::json config = io::read_json(s.dir / "config.json");
    EXPECT_EQ(config["model_type"], norm ? "qwen3" : "qwen2");
    EXPECT_EQ(load(s.dir.path(), model::config_from_json(config)), want);
  }
}

TEST(SaveModel, Fp8IsForTheTypesThatHaveIt) {
  const Saved s(small_config("mhc"));
  expect_error([&] { s.save(s.dir.path(), options(SaveType::fp8)); }, {"fp8", "deepseek_v3", "birkhoff"},
               ExitCode::usage);
}

void expect_same_tensor(const io::SafetensorsFile& a, const io::SafetensorsFile& b, const std::string& name) {
  const TensorEntry *x = a.find(name), *y = b.find(name);
  ASSERT_TRUE(x && y) << name;
  EXPECT_EQ(x->type, y->type) << name;
  EXPECT_EQ(x->shape, y->shape) << name;
  EXPECT_TRUE(x->bytes == y->bytes && std::memcmp(x->data, y->data, x->bytes) == 0) << name;
}

// Loaded from FP8 and bf16, one tensor changed, saved as fp32: everything else has the bytes it had.
TEST(SaveModel, WhatHasNotChangedKeepsItsBytes) {
  const Saved s(v3_config());
  s.save(s.dir.path(), options(SaveType::fp8));
  const TempDir out;
  const checkpoint::WeightFiles files(s.dir.path());
  const checkpoint::TensorMap map = checkpoint::match_tensors(files, s.model.m->config, s.model.m->parameters);
  checkpoint::load_weights(s.dir.path(), *s.model.m);
  const std::string changed = "model.layers.1.mlp.experts.2.up_proj.weight";
  for (const auto& p : s.model.m->parameters)
    if (p.name == changed) s.model.m->block[p.offset + 7] += 1;
  checkpoint::save_weights(out.path(), *s.model.m, s.config(), f32_t, &map);
  const io::SafetensorsFile before(s.dir / "model.safetensors"), after(out.path() + "/model.safetensors");
  for (const TensorEntry& e : before.tensors())
    if (e.name.rfind(changed, 0) != 0) expect_same_tensor(before, after, e.name);
  EXPECT_EQ(after.find(changed)->type, TensorType::f32);
  EXPECT_EQ(after.find(changed + "_scale_inv"), nullptr);
  EXPECT_EQ(load(out.path(), s.model.m->config), s.block());
  EXPECT_TRUE(io::read_json(out.path() + "/config.json").contains("quantization_config"))
      << "some tensors are still FP8";
}

TEST(SaveModel, ConvertsFromFilesAndBack) {
  const Saved s(v3_config());
  s.save(s.dir.path(), options(SaveType::fp8));
  const checkpoint::WeightFiles files(s.dir.path());
  const checkpoint::TensorMap map = checkpoint::match_tensors(files, s.model.m->config, s.model.m->parameters);
  const io::SafetensorsFile before(s.dir / "model.safetensors");
  for (const SaveType type : {SaveType::f32, SaveType::bf16, SaveType::fp8}) {
    const TempDir out;
    SaveOptions o = options(type);
    o.source = &map;
    o.keep_unchanged = false;
    checkpoint::save_model(out.path(), s.model.m->config, s.model.m->parameters, {},
                           io::read_json(s.dir / "config.json"), o);
    const io::SafetensorsFile after(out.path() + "/model.safetensors");
    if (type == SaveType::fp8) {
      EXPECT_EQ(read_file(out.path() + "/model.safetensors"), read_file(s.dir / "model.safetensors"));
      continue;
    }
    EXPECT_EQ(after.tensors().size(), s.model.m->parameters.size()) << "no factors are left";
    EXPECT_FALSE(io::read_json(out.path() + "/config.json").contains("quantization_config"));
    std::vector<float> want = load(s.dir.path(), s.model.m->config);
    for (const auto& p : s.model.m->parameters)
      for (int64_t i = p.offset;
           type == SaveType::bf16 && p.role != layers::Role::router_bias && i < p.offset + p.size(); ++i)
        want[static_cast<size_t>(i)] = to_float(to_bf16(want[static_cast<size_t>(i)]));
    EXPECT_EQ(load(out.path(), s.model.m->config), want);
  }
}

TEST(SaveModel, ShardsWithAnIndex) {
  const Saved s(v3_config());
  SaveOptions o = options(SaveType::fp8);
  o.shard_bytes = 20000;
  s.save(s.dir.path(), o);
  EXPECT_FALSE(fs::exists(s.dir / "model.safetensors"));
  const nlohmann::json index = io::read_json(s.dir / "model.safetensors.index.json");
  size_t total = 0, tensors = 0, shards = 0;
  for (const auto& entry : fs::directory_iterator(s.dir.path())) {
    if (entry.path().extension() != ".safetensors") continue;
    ++shards;
    const io::SafetensorsFile f(entry.path());
    size_t bytes = 0;
    for (const TensorEntry& e : f.tensors()) {
      EXPECT_EQ(index["weight_map"][e.name], entry.path().filename().string());
      bytes += e.bytes;
      ++tensors;
    }
    EXPECT_TRUE(bytes <= 20004 || f.tensors().size() <= 2) << bytes;  // factors stay with their tensor
    total += bytes;
  }
  EXPECT_GT(shards, 3u);
  EXPECT_EQ(index["weight_map"].size(), tensors);
  EXPECT_EQ(index["metadata"]["total_size"], total);
  const TempDir whole;
  s.save(whole.path(), options(SaveType::fp8));
  EXPECT_EQ(load(s.dir.path(), s.model.m->config), load(whole.path(), s.model.m->config));
}

TEST(SaveModel, TensorsThatAreNoParameterAreKept) {
  const Saved s(v3_config());
  s.save(s.dir.path(), options(SaveType::bf16));
  std::vector<TensorEntry> entries;
  const float buffer[2] = {1.5f, -2.f};
  {
    const io::SafetensorsFile f(s.dir / "model.safetensors");
    entries = f.tensors();
    entries.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq",
                       TensorType::f32,
                       {2},
                       reinterpret_cast<const std::byte*>(buffer),
                       8});
    io::write_safetensors(s.dir / "other.safetensors", entries);
  }
  fs::rename(s.dir / "other.safetensors", s.dir / "model.safetensors");
  const checkpoint::WeightFiles files(s.dir.path());
  const checkpoint::TensorMap map = checkpoint::match_tensors(files, s.model.m->config, s.model.m->parameters);
  const TempDir out;
  checkpoint::save_weights(out.path(), *s.model.m, s.config(), f32_t, &map);
  expect_same_tensor(io::SafetensorsFile(s.dir / "model.safetensors"),
                     io::SafetensorsFile(out.path() + "/model.safetensors"),
                     "model.layers.0.self_attn.rotary_emb.inv_freq");
}

// FP4 rows as V4's experts have them, read into masters.
TEST(StoredFormats, Fp4WithRowScales) {
  model::ModelConfig c = v3_config();
  c.hidden_size = 72;  // three factors a row, the last for 8 inputs
  const Saved s(c);
  s.save(s.dir.path(), options(SaveType::bf16));
  const std::string name = "model.layers.1.mlp.experts.0.gate_proj.weight",
                    scale_name = "model.layers.1.mlp.experts.0.gate_proj.scale";
  const int64_t rows = c.moe_intermediate_size, cols = 72;
  std::vector<uint8_t> packed(static_cast<size_t>(rows * cols / 2)), scales(static_cast<size_t>(rows * 3));
  for (size_t i = 0; i < packed.size(); ++i) packed[i] = static_cast<uint8_t>(Rng(1).bits(i));
  for (size_t i = 0; i < scales.size(); ++i) scales[i] = static_cast<uint8_t>(120 + Rng(2).bits(i) % 10);
  const auto write = [&](std::vector<int64_t> scale_shape, TensorType scale_type) {
    s.save(s.dir.path(), options(SaveType::bf16));
    const io::SafetensorsFile f(s.dir / "model.safetensors");
    std::vector<TensorEntry> entries = f.tensors();
    for (TensorEntry& e : entries)
      if (e.name == name)
        e.type = TensorType::i8, e.shape = {rows, cols / 2}, e.data = reinterpret_cast<const std::byte*>(packed.data()),
        e.bytes = packed.size();
    if (!scale_shape.empty()) {
      TensorEntry e{scale_name, scale_type, std::move(scale_shape), reinterpret_cast<const std::byte*>(scales.data()),
                    0};
      e.bytes = static_cast<size_t>(e.size() * io::tensor_type_bytes(e.type));
      entries.push_back(e);
    }
    io::write_safetensors(s.dir / "other", entries);
    fs::rename(s.dir / "other", s.dir / "model.safetensors");
  };
  write({rows, 3}, TensorType::f8_e8m0);
  const std::vector<float> got = load(s.dir.path(), c);
  for (const auto& p : s.model.m->parameters) {
    if (p.name != name) continue;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t k = 0; k < cols; ++k) {
        const uint8_t byte = packed[static_cast<size_t>(r * cols / 2 + k / 2)];
        const double want = reference::f4_e2m1(k % 2 ? byte >> 4 : byte & 15u) *
                            reference::f8_e8m0(scales[static_cast<size_t>(r * 3 + k / 32)]);
        ASSERT_EQ(got[static_cast<size_t>(p.offset + r * cols + k)], static_cast<float>(want)) << r << "," << k;
      }
    }
  }
  write({rows, 2}, TensorType::f8_e8m0);
  expect_error([&] { load(s.dir.path(), c); }, {"shape     " + scale_name + ": expected [10,3], file has [10,2]"});
  write({rows, 3}, TensorType::i8);
  expect_error([&] { load(s.dir.path(), c); }, {"type      " + scale_name + ": F32 or F8_E8M0 expected, file has I8"});
  write({}, TensorType::i8);
  expect_error([&] { load(s.dir.path(), c); }, {"type      " + name, "file has I8"});
}

TEST(StoredFormats, BlockSizeFromTheConfiguration) {
  nlohmann::json config = model::config_to_json(v3_config());
  const auto block = [&](const char* size) {
    if (size) config["quantization_config"]["weight_block_size"] = nlohmann::json::parse(size);
    const model::Quantisation q = model::config_from_json(config).quantisation;
    return std::pair{q.block_rows, q.block_cols};
  };
  EXPECT_EQ(block(nullptr), (std::pair<int64_t, int64_t>{128, 128}));
  EXPECT_EQ(block("[64,32]"), (std::pair<int64_t, int64_t>{64, 32}));
  for (const char* bad : {"[0,128]", "[128]", "128", "[128,-1]", "[1.5,2]", "[9000000000000,1]"})
    expect_error([&] { block(bad); }, {"weight_block_size", bad});
}

}  // namespace
}  // namespace birkhoff::test
