#include "io/gguf_writer.h"

#include <algorithm>

#include "core/error.h"

namespace birkhoff::io {
namespace {

constexpr size_t kGgufAlignment = 32;

template <class T>
void append_raw(std::string& out, T v) {
  out.append(reinterpret_cast<const char*>(&v), sizeof v);
}
void append_text(std::string& out, std::string_view s) {
  append_raw(out, uint64_t{s.size()});
  out += s;
}
size_t padding_of(size_t bytes) { return (kGgufAlignment - bytes % kGgufAlignment) % kGgufAlignment; }

}  // namespace

void GgufMetadata::begin(const std::string& key, GgufValueType type) {
  append_text(bytes_, key);
  append_raw(bytes_, static_cast<uint32_t>(type));
  ++count_;
}
void GgufMetadata::begin_array(const std::string& key, GgufValueType element, size_t count) {
  begin(key, GgufValueType::array);
  append_raw(bytes_, static_cast<uint32_t>(element));
  append_raw(bytes_, uint64_t{count});
}
void GgufMetadata::put(const std::string& key, bool v) {
  begin(key, GgufValueType::boolean);
  append_raw(bytes_, static_cast<uint8_t>(v));
}
void GgufMetadata::put(const std::string& key, uint32_t v) {
  begin(key, GgufValueType::u32);
  append_raw(bytes_, v);
}
void GgufMetadata::put(const std::string& key, float v) {
  begin(key, GgufValueType::f32);
  append_raw(bytes_, v);
}
void GgufMetadata::put(const std::string& key, std::string_view v) {
  begin(key, GgufValueType::string);
  append_text(bytes_, v);
}
void GgufMetadata::put(const std::string& key, std::span<const int32_t> v) {
  begin_array(key, GgufValueType::i32, v.size());
  for (const int32_t x : v) append_raw(bytes_, x);
}
void GgufMetadata::put(const std::string& key, std::span<const float> v) {
  begin_array(key, GgufValueType::f32, v.size());
  for (const float x : v) append_raw(bytes_, x);
}
void GgufMetadata::put(const std::string& key, std::span<const std::string> v) {
  begin_array(key, GgufValueType::string, v.size());
  for (const std::string& s : v) append_text(bytes_, s);
}

void GgufMetadata::put(const GgufValue& v) {
  const std::string key(v.key);
  const std::string_view bytes(reinterpret_cast<const char*>(v.bytes.data()), v.bytes.size());
  if (v.type == GgufValueType::string) return put(key, bytes);
  if (v.type == GgufValueType::array)
    begin_array(key, v.element, v.count);
  else
    begin(key, v.type);
  bytes_ += bytes;
}

size_t GgufTensorPlan::bytes() const {
  int64_t elements = 1;
  for (const int64_t n : shape) elements *= n;
  return static_cast<size_t>(elements / type->elements * type->bytes);
}

GgufWriter::GgufWriter(const std::string& path, const GgufMetadata& metadata, std::span<const GgufTensorPlan> tensors)
    : file_(path) {
  constexpr uint32_t kVersion = 3;
  constexpr size_t kMostNameBytes = 63;
  std::string header = "GGUF";
  append_raw(header, kVersion);
  append_raw(header, uint64_t{tensors.size()});
  append_raw(header, metadata.count());
  header += metadata.bytes();
  uint64_t offset = 0;
  for (const GgufTensorPlan& t : tensors) {
    BK_CHECK(!t.shape.empty() && t.shape.size() <= 4 && t.shape.back() % t.type->elements == 0);
    if (t.name.size() > kMostNameBytes)
      throw Error("gguf", path + ": the name " + t.name + " has " + std::to_string(t.name.size()) +
                              " bytes, readers take at most 63");
    append_text(header, t.name);
    append_raw(header, static_cast<uint32_t>(t.shape.size()));
    for (auto n = t.shape.rbegin(); n != t.shape.rend(); ++n) append_raw(header, static_cast<uint64_t>(*n));
    append_raw(header, t.type->id);
    append_raw(header, offset);
    sizes_.push_back(t.bytes());
    offset += t.bytes() + padding_of(t.bytes());
  }
  header.resize(header.size() + padding_of(header.size()), '\0');
  file_.append(header.data(), header.size());
  if (!sizes_.empty()) left_ = sizes_.front();
}

void GgufWriter::close_tensor() {
  constexpr char kZeros[kGgufAlignment] = {};
  file_.append(kZeros, padding_of(sizes_[tensor_]));
  if (++tensor_ < sizes_.size()) left_ = sizes_[tensor_];
}

void GgufWriter::append(const void* data, size_t bytes) {
  BK_CHECK(tensor_ < sizes_.size() && bytes <= left_);
  file_.append(data, bytes);
  left_ -= bytes;
  if (left_ == 0) close_tensor();
}

void GgufWriter::finish() {
  BK_CHECK_EQ(tensor_, sizes_.size());
  file_.publish();
}

}  // namespace birkhoff::io
