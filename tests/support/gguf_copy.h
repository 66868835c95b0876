// A GGUF file taken apart, to be put together again with changes.
#pragma once
#include <string>

#include "io/gguf.h"
#include "support/gguf_bytes.h"

namespace birkhoff::test {

inline GgufBytes gguf_copy(const std::string& path) {
  const io::GgufFile f(path);
  GgufBytes g;
  for (const io::GgufValue& v : f.values()) {
    std::string bytes(reinterpret_cast<const char*>(v.bytes.data()), v.bytes.size());
    if (v.type == io::GgufValueType::string) bytes = GgufBytes::raw(v.count) + bytes;
    if (v.type == io::GgufValueType::array)
      bytes = GgufBytes::raw(static_cast<uint32_t>(v.element)) + GgufBytes::raw(v.count) + bytes;
    g.put(std::string(v.key), static_cast<uint32_t>(v.type), bytes);
  }
  for (const io::GgufTensor& t : f.tensors())
    g.add(std::string(t.name), {t.dims.begin(), t.dims.begin() + t.dim_count}, t.type->id,
          {reinterpret_cast<const char*>(t.data), t.bytes});
  return g;
}

// The bytes of a tensor.
inline std::string gguf_data(GgufBytes& g, const std::string& name) {
  const GgufBytes::Tensor& t = g.at(name);
  uint64_t blocks = 1;
  for (const uint64_t d : t.dims) blocks *= d;
  const io::GgufTensorType& type = *io::find_gguf_tensor_type(t.type);
  return g.data.substr(t.offset, blocks / static_cast<uint64_t>(type.elements) * static_cast<uint64_t>(type.bytes));
}

inline void gguf_remove(GgufBytes& g, const std::string& name) {
  std::erase_if(g.tensors, [&](const GgufBytes::Tensor& t) { return t.name == name; });
}

}  // namespace birkhoff::test
