// safetensors files: the length of the header, the header, data that is cut short.
#include <cstring>

#include "core/error.h"
#include "fuzz/mutate.h"
#include "io/safetensors.h"

namespace {

using namespace birkhoff;

std::string file_with(const std::string& header, size_t data_bytes) {
  const uint64_t n = header.size();
  return std::string(reinterpret_cast<const char*>(&n), 8) + header + std::string(data_bytes, 'x');
}

// The header's length follows from the rest in most inputs, so that they get past it.
std::string repaired(std::string input) {
  if (input.size() < 16 || input[0] % 4 == 0) return input;
  const size_t brace = input.rfind('}');
  const uint64_t n = brace == std::string::npos || brace < 8 ? input.size() - 8 : brace + 1 - 8;
  std::memcpy(input.data(), &n, 8);
  return input;
}

void touch(const io::SafetensorsFile& f) {
  size_t sum = 0;
  for (const io::TensorEntry& e : f.tensors()) {
    if (e.bytes != static_cast<size_t>(e.size() * io::tensor_type_bytes(e.type)))
      throw std::logic_error("a tensor of the wrong size was accepted");
    for (size_t i = 0; i < e.bytes; ++i) sum += static_cast<size_t>(e.data[i]);
    if (f.find(e.name) == nullptr) throw std::logic_error("a tensor has no name");
  }
  if (sum == 1) std::puts("");  // the bytes are read
}

}  // namespace

int main(int argc, char** argv) {
  fuzz::MemoryFile file;
  fuzz::Target t;
  t.name = "safetensors";
  t.seeds = {
      file_with(
          R"({"__metadata__":{"format":"pt"},"a.weight":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}})",
          32),
      file_with(
          R"({"w":{"dtype":"F8_E4M3","shape":[3,5],"data_offsets":[0,15]},"w_scale_inv":{"dtype":"F32","shape":[1,1],"data_offsets":[15,19]},"e":{"dtype":"I64","shape":[0,7],"data_offsets":[19,19]}})",
          19),
      file_with("{}", 0)};
  t.dictionary = {"\"dtype\":", "\"shape\":", "\"data_offsets\":", "\"F16\"", "\"F8_E8M0\"", "\"BOOL\"", "[]", "{}",
                  "null",       "true",       "\\u0000",           "\xff",    "__metadata__"};
  // Many tensors, many dimensions, long names, much metadata.
  const size_t most = (size_t{24} << 20) - 256;
  const auto header = [=](const std::string& entry, size_t bytes) {
    return [=] {
      return file_with("{" + fuzz::repeated(entry, bytes) + R"("z":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
                       0);
    };
  };
  t.large = {header(R"("#":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)", most),
             header(R"("#":{"dtype":"U8","shape":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],"data_offsets":[0,0]},)", most),
             header(R"("#)" + std::string(65, 'n') + R"(":{"dtype":"U8","shape":[0,0],"data_offsets":[0,0]},)", most),
             header(R"("__metadata__":{)" + fuzz::repeated(R"("#":"#",)", most / 2) + R"("a":"b"},)", 1),
             [] { return file_with(std::string(size_t{25} << 20, ' '), 0); }};
  t.run = [&](const std::string& input) {
    file.fill(input.size() > (size_t{1} << 20) ? input : repaired(input));
    touch(io::SafetensorsFile(file.path()));
  };
  return fuzz::run(argc, argv, t);
}
