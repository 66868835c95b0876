// GGUF files in memory, right or wrong on purpose.
#pragma once
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace birkhoff::test {

struct GgufBytes {
  enum : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64, i64, f64 };  // types of values
  struct Value {
    std::string key;
    uint32_t type;
    std::string bytes;
  };
  struct Tensor {
    std::string name;
    std::vector<uint64_t> dims;  // innermost first
    uint32_t type;
    uint64_t offset;
  };
  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t alignment = 32;
  std::vector<Value> values;
  std::vector<Tensor> tensors;
  std::string data;
  std::optional<uint64_t> claimed_tensors, claimed_values;

  template <class T>
  static std::string raw(T v) {
    return {reinterpret_cast<const char*>(&v), sizeof v};
  }
  static std::string raw_text(const std::string& s) { return raw(uint64_t{s.size()}) + s; }
  template <class T>
  static std::string raw_array(uint32_t type, const std::vector<T>& v) {
    std::string out = raw(type) + raw(uint64_t{v.size()});
    for (const T& x : v) out += raw(x);
    return out;
  }
  static std::string raw_array(const std::vector<std::string>& v) {
    std::string out = raw(uint32_t{text}) + raw(uint64_t{v.size()});
    for (const std::string& s : v) out += raw_text(s);
    return out;
  }
  void put(const std::string& key, uint32_t type, const std::string& bytes) {
    for (Value& v : values)
      if (v.key == key) return void(v = {key, type, bytes});
    values.push_back({key, type, bytes});
  }
  void put(const std::string& key, int v) { put(key, u32, raw(static_cast<uint32_t>(v))); }
  void put(const std::string& key, double v) { put(key, f32, raw(static_cast<float>(v))); }
  void put(const std::string& key, bool v) { put(key, boolean, raw(static_cast<uint8_t>(v))); }
  void put(const std::string& key, const char* v) { put(key, text, raw_text(v)); }
  void drop(const std::string& key) {
    std::erase_if(values, [&](const Value& v) { return v.key == key; });
  }
  Tensor& at(const std::string& name) {
    for (Tensor& t : tensors)
      if (t.name == name) return t;
    throw std::out_of_range(name);
  }
  void add(const std::string& name, std::vector<uint64_t> dims, uint32_t type, const std::string& bytes) {
    tensors.push_back({name, std::move(dims), type, data.size()});
    data += bytes;
    data.resize((data.size() + alignment - 1) / alignment * alignment);
  }
  std::string header() const {
    std::string out = magic + raw(version) + raw(claimed_tensors.value_or(tensors.size())) +
                      raw(claimed_values.value_or(values.size()));
    for (const Value& v : values) out += raw_text(v.key) + raw(v.type) + v.bytes;
    for (const Tensor& t : tensors) {
      out += raw_text(t.name) + raw(static_cast<uint32_t>(t.dims.size()));
      for (const uint64_t d : t.dims) out += raw(d);
      out += raw(t.type) + raw(t.offset);
    }
    return out;
  }
  std::string bytes() const {
    std::string out = header();
    out.resize((out.size() + alignment - 1) / alignment * alignment);
    return out + data;
  }
};

}  // namespace birkhoff::test
