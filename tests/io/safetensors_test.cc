// The format as written and read, and files that lie: every claim of a header is an Error that names file and tensor.
#include "io/safetensors.h"

#include <sys/stat.h>

#include <cstring>

#include "core/rng.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

using io::SafetensorsFile;
using io::TensorEntry;
using io::TensorType;

std::string with_header(const std::string& header, const std::string& data = "") {
  const uint64_t n = header.size();
  return std::string(reinterpret_cast<const char*>(&n), 8) + header + data;
}

// One file with this content, opened.
SafetensorsFile open(const TempDir& dir, const std::string& content) {
  return SafetensorsFile(dir.file("f.safetensors", content));
}

void expect_refused(const std::string& content, std::vector<std::string> parts) {
  TempDir dir;
  parts.push_back("f.safetensors");
  expect_error([&] { open(dir, content); }, parts);
}

TEST(Safetensors, WritesWhatItReads) {
  TempDir dir;
  const std::string bytes = "0123456789abcdef0123456789abcdef";
  const auto entry = [&](const char* name, TensorType t, std::vector<int64_t> shape) {
    TensorEntry e{name, t, std::move(shape), reinterpret_cast<const std::byte*>(bytes.data()), 0};
    e.bytes = static_cast<size_t>(e.size() * tensor_type_bytes(t));
    return e;
  };
  const std::vector<TensorEntry> all = {entry("z last name first", TensorType::f32, {2, 3}),
                                        entry("scalar", TensorType::f64, {}),
                                        entry("none", TensorType::bf16, {0, 7}),
                                        entry("u8", TensorType::u8, {3}),
                                        entry("i64", TensorType::i64, {1}),
                                        entry("f8 \"quoted\" \xc3\xa9", TensorType::f8_e4m3, {2, 2}),
                                        entry("b", TensorType::boolean, {1, 1, 1})};
  io::write_safetensors(dir / "f", all, {{"format", "pt"}, {"note", "line\nbreak"}});
  const SafetensorsFile f(dir / "f");
  EXPECT_EQ(f.metadata().at("format"), "pt");
  EXPECT_EQ(f.metadata().at("note"), "line\nbreak");
  ASSERT_EQ(f.tensors().size(), all.size());
  for (const auto& want : all) {
    const TensorEntry* e = f.find(want.name);
    ASSERT_NE(e, nullptr) << want.name;
    EXPECT_EQ(e->type, want.type);
    EXPECT_EQ(e->shape, want.shape);
    ASSERT_EQ(e->bytes, want.bytes);
    EXPECT_EQ(std::memcmp(e->data, bytes.data(), e->bytes), 0) << want.name;
  }
  EXPECT_EQ(f.find("absent"), nullptr);
  EXPECT_EQ(read_file(dir / "f")[8], '{');
  uint64_t header = 0;
  std::memcpy(&header, read_file(dir / "f").data(), 8);
  EXPECT_EQ(header % 8, 0u) << "data starts aligned";
}

TEST(Safetensors, NoTensors) {
  TempDir dir;
  io::write_safetensors(dir / "f", {});
  EXPECT_TRUE(SafetensorsFile(dir / "f").tensors().empty());
}

TEST(Safetensors, MissingOrNoFile) {
  TempDir dir;
  expect_error([&] { SafetensorsFile(dir / "absent"); }, {"absent", "No such file"});
  expect_error([&] { SafetensorsFile(dir.path()); }, {dir.path(), "is a directory"});
}

TEST(Safetensors, HeadersThatLie) {
  expect_refused("", {"0 bytes"});
  expect_refused("1234567", {"7 bytes"});
  expect_refused(std::string(8, '\xff'), {"18446744073709551615"});
  expect_refused(std::string("\x10\0\0\0\0\0\0\0{}", 10), {"16 bytes", "10"});
  expect_refused(with_header(""), {"JSON"});
  expect_refused(with_header("{\"a\":"), {"JSON"});
  expect_refused(with_header("[]"), {"JSON"});
  expect_refused(with_header(std::string(1 << 20, '[')), {"JSON"});
  expect_refused(with_header("{\"a\":1}"), {"a: no dtype"});
  expect_refused(with_header("{\"a\":{\"dtype\":3,\"shape\":[1],\"data_offsets\":[0,4]}}", "1234"), {"a: no dtype"});
  expect_refused(with_header("{\"a\":{\"dtype\":\"F31\",\"shape\":[1],\"data_offsets\":[0,4]}}", "1234"),
                 {"a: unknown dtype F31"});
  expect_refused(with_header("{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", "1234"), {"a: no shape"});
  expect_refused(with_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", "1234"),
                 {"a: shape"});
  expect_refused(with_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", "1234"),
                 {"a: shape"});
  expect_refused(with_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}"),
                 {"a: shape overflows"});
  expect_refused(with_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}"),
                 {"a:"});
  expect_refused(
      with_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[18446744073709551615],\"data_offsets\":[0,4]}}", "1234"),
      {"a: shape"});
  expect_refused(with_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", "1234"), {"a: no data_offsets"});
  expect_refused(with_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", "1234"),
                 {"a: no data_offsets"});
  expect_refused(with_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,-4]}}", "1234"),
                 {"a: no data_offsets"});
  expect_refused(with_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", "12345678"), {"a:"});
  expect_refused(with_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", "123"),
                 {"a: data ends at 4", "3 bytes", "truncated"});
  expect_refused(with_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", "1234"),
                 {"a: 4 bytes for 2 elements of F32"});
}

TEST(Safetensors, HeadersWithoutEnd) {
  expect_refused(with_header(std::string((24 << 20) + 1, ' ')), {"25165825", "at most 25165824"});
  std::string tensors = "{", metadata = "{\"__metadata__\":{";
  for (int i = 0; i <= 200'000; ++i)
    tensors += (i ? ",\"" : "\"") + std::to_string(i) + "\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}";
  expect_refused(with_header(tensors + "}"), {"more than 200000 tensors"});
  for (int i = 0; i <= 10'000; ++i) metadata += (i ? ",\"" : "\"") + std::to_string(i) + "\":\"\"";
  expect_refused(with_header(metadata + "}}"), {"__metadata__", "more than 10000"});
  expect_refused(with_header("{\"__metadata__\":{},\"__metadata__\":{}}"), {"__metadata__", "twice"});
}

std::string two(const std::string& a, const std::string& b) {
  return "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" + a +
         "},\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" + b + "}}";
}

TEST(Safetensors, TensorsMayNotShareBytes) {
  expect_refused(with_header(two("[0,4]", "[3,7]"), "12345678"), {"a", "b", "overlap"});
  expect_refused(with_header(two("[4,8]", "[4,8]"), "12345678"), {"a", "b", "overlap"});
  TempDir dir;
  EXPECT_EQ(open(dir, with_header(two("[4,8]", "[0,4]"), "12345678")).tensors().front().name, "b") << "in file order";
}

TEST(Safetensors, NamesMayNotRepeat) {
  expect_refused(with_header("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"a\":{\"dtype\":\"U8\","
                             "\"shape\":[4],\"data_offsets\":[4,8]}}",
                             "12345678"),
                 {"a", "twice"});
}

// Every truncation of a good file is refused, or (behind the last tensor) impossible to tell.
TEST(Safetensors, EveryTruncationIsRefused) {
  TempDir dir;
  const float values[6] = {1, 2, 3, 4, 5, 6};
  const TensorEntry t{"weight", TensorType::f32, {2, 3}, reinterpret_cast<const std::byte*>(values), 24};
  io::write_safetensors(dir / "good", {&t, 1}, {{"format", "pt"}});
  const std::string good = read_file(dir / "good");
  for (size_t n = 0; n < good.size(); ++n) {
    const std::string path = dir.file("cut", good.substr(0, n));
    EXPECT_THROW(SafetensorsFile f(path), Error) << n << " of " << good.size() << " bytes";
  }
}

// Random bytes changed in the header: an Error or a file whose claims hold, never anything else.
TEST(Safetensors, EditedHeadersNeverCrash) {
  TempDir dir;
  const float values[6] = {1, 2, 3, 4, 5, 6};
  const TensorEntry t[] = {{"a", TensorType::f32, {2, 2}, reinterpret_cast<const std::byte*>(values), 16},
                           {"b", TensorType::f32, {2}, reinterpret_cast<const std::byte*>(values), 8}};
  io::write_safetensors(dir / "good", t);
  const std::string good = read_file(dir / "good");
  for (uint64_t i = 0; i < 1000; ++i) {
    std::string bad = good;
    const Rng rng(1, i);
    for (uint64_t k = 0; k < 1 + rng.bits(99) % 3; ++k)
      bad[rng.bits(k) % (good.size() - 24)] = static_cast<char>(rng.bits(50 + k));
    try {
      const SafetensorsFile f(dir.file("edited", bad));
      for (const auto& e : f.tensors()) {
        ASSERT_EQ(e.bytes, static_cast<size_t>(e.size() * tensor_type_bytes(e.type)));
        volatile char sum = 0;
        for (size_t b = 0; b < e.bytes; ++b)
          sum = static_cast<char>(sum + static_cast<char>(e.data[b]));  // inside the mapping
      }
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("edited"), std::string::npos);
    }
  }
}

TEST(Safetensors, WritingWhereOneCannot) {
  TempDir dir;
  expect_error([&] { io::write_safetensors(dir / "no/such/folder/f", {}); }, {"no/such/folder/f", "No such file"});
  expect_error([&] { io::write_safetensors(dir.path(), {}); }, {dir.path(), "directory"});
  EXPECT_THROW(io::write_safetensors("/dev/full", {}), Error);
  ASSERT_EQ(mkfifo((dir / "fifo").c_str(), 0600), 0);
  expect_error([&] { io::write_safetensors(dir / "fifo", {}); }, {dir / "fifo", "a pipe that nobody reads"});
}

}  // namespace
}  // namespace birkhoff::test
