// The container as written by hand, and files that lie: every claim of a header is an Error that names file, place and
// value.
#include "io/gguf.h"

#include <cstring>

#include "support/gguf_bytes.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

using io::GgufFile;
using Bytes = GgufBytes;

Bytes sample() {
  Bytes g;
  g.put("general.architecture", "llama");
  g.put("llama.block_count", 2);
  g.put("llama.rope.freq_base", 1e4);
  g.put("eps", 1e-5);
  g.put("flag", true);
  g.put("tokens", Bytes::array, Bytes::raw_array({"a", "", "\u2581b"}));
  g.put("types", Bytes::array, Bytes::raw_array<int32_t>(Bytes::i32, {1, 3, 6}));
  g.put("scores", Bytes::array, Bytes::raw_array<float>(Bytes::f32, {0.f, -1.5f}));
  g.put("negative", Bytes::i64, Bytes::raw(int64_t{-4}));
  g.add("w", {32, 3}, 2, std::string(54, 'w'));
  g.add("norm", {5}, 0, std::string(20, 'n'));
  g.add("experts", {64, 2, 3}, 8, std::string(2 * 6 * 34, 'e'));
  return g;
}

void expect_refused_gguf(const std::string& content, std::vector<std::string> parts) {
  TempDir dir;
  parts.push_back("f.gguf");
  const std::string path = dir.file("f.gguf", content);
  expect_error([&] { GgufFile f(path); }, parts);
}
template <class F>
void expect_refused_sample(F&& edit, std::vector<std::string> parts) {
  Bytes g = sample();
  edit(g);
  expect_refused_gguf(g.bytes(), std::move(parts));
}

TEST(Gguf, ReadsWhatIsThere) {
  for (const uint32_t version : {2u, 3u}) {
    TempDir dir;
    Bytes g = sample();
    g.version = version;
    const GgufFile f(dir.file("f.gguf", g.bytes() + std::string(1024, 'x')));
    EXPECT_EQ(f.version(), version);
    EXPECT_EQ(f.text("general.architecture"), "llama");
    EXPECT_EQ(f.natural("llama.block_count"), 2u);
    EXPECT_EQ(f.number("llama.rope.freq_base"), 1e4);
    EXPECT_EQ(f.number("negative"), -4);
    EXPECT_EQ(f.number("eps"), 1e-5);  // not the float's 9.99999974738e-06
    EXPECT_EQ(f.boolean("flag"), true);
    EXPECT_EQ(f.texts("tokens"), (std::vector<std::string_view>{"a", "", "\u2581b"}));
    EXPECT_EQ(f.naturals("types"), (std::vector<uint64_t>{1, 3, 6}));
    EXPECT_EQ(f.naturals("llama.block_count"), (std::vector<uint64_t>{2}));
    EXPECT_EQ(f.numbers("scores"), (std::vector<double>{0, -1.5}));
    EXPECT_FALSE(f.natural("absent") || f.text("absent") || f.texts("absent") || f.number("absent"));
    ASSERT_EQ(f.tensors().size(), 3u);
    const io::GgufTensor* e = f.find("experts");
    ASSERT_NE(e, nullptr);
    EXPECT_EQ(e->shape(), (std::vector<int64_t>{3, 2, 64}));
    EXPECT_STREQ(e->type->name, "Q8_0");
    EXPECT_EQ(e->row_bytes(), 68);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(e->data), e->bytes), std::string(408, 'e'));
    EXPECT_EQ(f.find("expert"), nullptr);
  }
}

TEST(Gguf, TypedAccessNamesKeyAndType) {
  TempDir dir;
  const GgufFile f(dir.file("f.gguf", sample().bytes()));
  expect_error([&] { f.natural("negative"); }, {"f.gguf", "negative", "-4", "i64"});
  expect_error([&] { f.natural("flag"); }, {"flag", "bool", "natural"});
  expect_error([&] { f.text("llama.block_count"); }, {"llama.block_count", "u32", "string"});
  expect_error([&] { f.texts("types"); }, {"types", "array of i32"});
  expect_error([&] { f.naturals("tokens"); }, {"tokens", "array of string"});
  expect_error([&] { f.boolean("llama.block_count"); }, {"bool"});
  expect_error([&] { f.number("tokens"); }, {"a number"});
  expect_error([&] { f.numbers("flag"); }, {"array of numbers"});
}

TEST(Gguf, RefusesOtherFormatsAndVersions) {
  const std::string good = sample().bytes();
  expect_refused_gguf("", {"no bytes"});
  expect_refused_gguf("GG", {"byte 0"});
  expect_refused_gguf("GGUF", {"byte 4", "version"});
  expect_refused_gguf("GGUX" + good.substr(4), {"byte 0", "GGUX"});
  expect_refused_gguf("tjgg" + good.substr(4), {"before GGUF"});
  for (const uint32_t v : {0u, 1u, 4u, 0x10003u})
    expect_refused_sample([&](Bytes& g) { g.version = v; }, {"byte 4", "version " + std::to_string(v)});
  expect_refused_sample([](Bytes& g) { g.version = 3u << 24; }, {"big-endian"});
}

TEST(Gguf, RefusesCountsAndLengths) {
  expect_refused_sample([](Bytes& g) { g.claimed_tensors = uint64_t{1} << 40; }, {"1099511627776 tensors"});
  expect_refused_sample([](Bytes& g) { g.claimed_tensors = UINT64_MAX; }, {"tensors"});
  expect_refused_sample([](Bytes& g) { g.claimed_values = uint64_t{1} << 60; }, {"1152921504606846976 keys"});
  expect_refused_sample([](Bytes& g) { g.claimed_values = 60'000; }, {"60000 keys", "truncated"});
  const auto text = [](uint64_t length) {
    return [length](Bytes& g) { g.put("general.name", Bytes::text, Bytes::raw(length) + "x"); };
  };
  expect_refused_sample(text(uint64_t{1} << 63), {"byte ", "general.name", "9223372036854775808"});
  expect_refused_sample(text(uint64_t{1} << 30), {"general.name", "1073741824"});
  expect_refused_sample(
      [](Bytes& g) {
        g.put("a", Bytes::array, Bytes::raw(uint32_t{Bytes::u64}) + Bytes::raw(uint64_t{1} << 61) + std::string(8, 0));
      },
      {"\"a\"", "2305843009213693952"});
  expect_refused_sample(
      [](Bytes& g) { g.put("a", Bytes::array, Bytes::raw(uint32_t{Bytes::text}) + Bytes::raw(uint64_t{1} << 50)); },
      {"\"a\"", "1125899906842624"});
  expect_refused_sample([](Bytes& g) { g.values[0].key = ""; }, {"key 0 is empty"});
  expect_refused_sample([](Bytes& g) { g.values[0].key = std::string(70'000, 'k'); }, {"70000 bytes"});
  expect_refused_sample([](Bytes& g) { g.values[0].type = 13; }, {"value type 13"});
  expect_refused_sample([](Bytes& g) { g.values.push_back(g.values[1]); }, {"llama.block_count", "twice"});
  const std::string good = sample().header();
  for (size_t n = 5; n < good.size(); n += 7) expect_refused_gguf(good.substr(0, n), {"truncated"});
}

TEST(Gguf, ArraysOfArraysAreSkipped) {
  const std::string level = Bytes::raw(uint32_t{Bytes::array}) + Bytes::raw(uint64_t{1});
  const auto nested = [&](size_t levels) {
    std::string value;
    for (size_t i = 0; i < levels; ++i) value += level;
    return value + Bytes::raw_array<uint32_t>(Bytes::u32, {7});
  };
  Bytes g = sample();
  g.put("nested", Bytes::array, nested(7));
  g.put("zero", Bytes::array, Bytes::raw(uint32_t{Bytes::array}) + Bytes::raw(uint64_t{0}));
  TempDir dir;
  const GgufFile f(dir.file("f.gguf", g.bytes()));
  EXPECT_EQ(f.text("general.architecture"), "llama");
  EXPECT_EQ(f.tensors().size(), 3u);
  for (const size_t levels : {8u, 100'000u})
    expect_refused_sample([&](Bytes& b) { b.put("deep", Bytes::array, nested(levels)); }, {"\"deep\"", "nests"});
}

TEST(Gguf, RefusesTensors) {
  using Tensor = Bytes::Tensor;
  const auto refused = [](auto&& edit, std::vector<std::string> parts) {
    expect_refused_sample([&](Bytes& g) { edit(g.at("w")); }, std::move(parts));
  };
  refused([](Tensor& t) { t.name = ""; }, {"name of tensor 0", "0 bytes"});
  refused([](Tensor& t) { t.name = std::string(65, 'x'); }, {"65 bytes"});
  refused([](Tensor& t) { t.name = std::string(1 << 20, 'x'); }, {"1048576 bytes"});
  refused([](Tensor& t) { t.name = "norm"; }, {"norm", "twice"});
  refused([](Tensor& t) { t.dims = {}; }, {"\"w\"", "0 dimensions"});
  refused([](Tensor& t) { t.dims = {32, 1, 1, 1, 1}; }, {"5 dimensions"});
  refused([](Tensor& t) { t.dims[1] = 0; }, {"dimension 1 is 0"});
  refused([](Tensor& t) { t.dims[0] = uint64_t{1} << 63; }, {"9223372036854775808"});
  refused([](Tensor& t) { t.dims = {uint64_t{1} << 32, uint64_t{1} << 32}; }, {"overflow"});
  refused([](Tensor& t) { t.dims = {uint64_t{1} << 62}, t.type = 0; }, {"size overflows"});
  refused([](Tensor& t) { t.dims[0] = 48; }, {"rows of 48", "blocks of 32", "Q4_0"});
  for (const uint32_t type : {4u, 5u, 9u, 15u, 31u, 33u, 36u, 37u, 38u, 43u, 139u, 250u})
    refused([&](Tensor& t) { t.type = type; }, {"type " + std::to_string(type)});
  refused([](Tensor& t) { t.offset = uint64_t{1} << 40; }, {"\"w\"", "1099511627776", "truncated"});
  refused([](Tensor& t) { t.offset = UINT64_MAX - 31; }, {"18446744073709551584"});
  refused([](Tensor& t) { t.offset = 8; }, {"offset 8", "alignment 32"});
  refused([](Tensor& t) { t.offset = 64; }, {"\"w\"", "\"norm\"", "overlap"});
  const std::string good = sample().bytes();
  expect_refused_gguf(good.substr(0, good.size() - 100), {"\"experts\"", "truncated"});
}

TEST(Gguf, AlignmentIsTheFiles) {
  for (const uint32_t alignment : {1u, 8u, 64u, 4096u}) {
    Bytes g;
    g.alignment = alignment;
    g.put("general.alignment", static_cast<int>(alignment));
    g.add("a", {3}, 24, "abc");
    g.add("b", {3}, 24, "def");
    TempDir dir;
    const GgufFile f(dir.file("f.gguf", g.bytes()));
    EXPECT_EQ(std::memcmp(f.find("b")->data, "def", 3), 0) << alignment;
  }
  expect_refused_sample([](Bytes& g) { g.put("general.alignment", 0); }, {"general.alignment", "0"});
  expect_refused_sample([](Bytes& g) { g.put("general.alignment", 24); }, {"24", "power of two"});
  expect_refused_sample([](Bytes& g) { g.put("general.alignment", "x"); }, {"string"});
}

TEST(Gguf, ListInAnotherOrderThanTheData) {
  Bytes g = sample();
  std::swap(g.tensors[0], g.tensors[2]);
  TempDir dir;
  const GgufFile f(dir.file("f.gguf", g.bytes()));
  EXPECT_EQ(static_cast<char>(*f.find("w")->data), 'w');
  EXPECT_EQ(static_cast<char>(*f.find("experts")->data), 'e');
}

// name-00001-of-00003.gguf and so on, with `edit(shard, number)` before each is written.
template <class F>
std::string write_shards(const TempDir& dir, F&& edit) {
  for (int i = 0; i < 3; ++i) {
    Bytes g;
    if (i == 0) g.put("general.architecture", "llama");
    if (i == 0) g.put("split.tensors.count", Bytes::i32, Bytes::raw(int32_t{2}));
    g.put("split.no", Bytes::u16, Bytes::raw(static_cast<uint16_t>(i)));
    g.put("split.count", Bytes::u16, Bytes::raw(uint16_t{3}));
    if (i > 0) g.add("t" + std::to_string(i), {4}, 0, std::string(16, static_cast<char>('0' + i)));
    edit(g, i);
    if (!g.magic.empty()) dir.file("m-0000" + std::to_string(i + 1) + "-of-00003.gguf", g.bytes());
  }
  return dir / "m-00001-of-00003.gguf";
}

TEST(Gguf, ShardsAreOneModel) {
  TempDir dir;
  const io::GgufModel m(write_shards(dir, [](Bytes&, int) {}));
  ASSERT_EQ(m.tensors().size(), 2u);
  EXPECT_EQ(static_cast<char>(*m.find("t2")->data), '2');
  EXPECT_EQ(m.find("t3"), nullptr);
  EXPECT_EQ(m.metadata().text("general.architecture"), "llama");
  EXPECT_EQ(m.paths().size(), 3u);
  expect_error([&] { io::GgufModel second(dir / "m-00002-of-00003.gguf"); }, {"shard 2 of 3", "-00001-of-00003.gguf"});
}

TEST(Gguf, RefusesShardsThatDoNotBelongTogether) {
  const auto refused = [](auto&& edit, const std::vector<std::string>& parts) {
    TempDir dir;
    const std::string path = write_shards(dir, edit);
    expect_error([&] { io::GgufModel m(path); }, parts);
  };
  refused([](Bytes& g, int i) { i == 2 ? void(g.magic = "") : void(); }, {"shard 3 of 3 is missing", "00003-of-00003"});
  refused([](Bytes& g, int i) { i == 1 ? g.put("split.no", 2) : void(); }, {"shard 3 of 3", "2 of 3"});
  refused([](Bytes& g, int i) { i == 1 ? g.put("split.count", 4) : void(); }, {"of 4"});
  refused([](Bytes& g, int i) { i == 1 ? g.drop("split.no") : void(); }, {"shard ?"});
  refused([](Bytes& g, int i) { i == 0 ? g.put("split.tensors.count", 9) : void(); },
          {"split.tensors.count is 9", "2"});
  refused([](Bytes& g, int i) { i == 2 ? void(g.tensors[0].name = "t1") : void(); }, {"t1", "two shards"});
  refused([](Bytes& g, int) { g.put("split.count", 20'000); }, {"20000"});
  TempDir dir;
  const std::string path = write_shards(dir, [](Bytes&, int) {});
  std::filesystem::rename(path, dir / "other.gguf");
  expect_error([&] { io::GgufModel m(dir / "other.gguf"); }, {"first of 3 shards", "-00001-of-00003.gguf"});
}

TEST(Gguf, IsKnownByMagicOrName) {
  TempDir dir;
  EXPECT_TRUE(io::is_gguf(dir.file("a", sample().bytes())));
  EXPECT_TRUE(io::is_gguf(dir.file("b.gguf", "")));
  EXPECT_FALSE(io::is_gguf(dir.file("c", "GG")));
  EXPECT_FALSE(io::is_gguf(dir.path()));
  EXPECT_FALSE(io::is_gguf(dir / "absent.gguf"));
}

}  // namespace
}  // namespace birkhoff::test
