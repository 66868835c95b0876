// GGUF files: counts, lengths, types of values, dimensions, offsets.
#include "core/error.h"
#include "fuzz/mutate.h"
#include "io/gguf.h"
#include "tests/support/gguf_bytes.h"

namespace {

using namespace birkhoff;
using Bytes = test::GgufBytes;

Bytes seed(uint32_t version) {
  Bytes g;
  g.version = version;
  g.put("general.architecture", "llama");
  g.put("general.alignment", 32);
  g.put("llama.block_count", 1);
  g.put("llama.rope.freq_base", 1e4);
  g.put("tokenizer.ggml.add_bos_token", true);
  g.put("tokenizer.ggml.tokens", Bytes::array, Bytes::raw_array({"<s>", "a", "", "b"}));
  g.put("tokenizer.ggml.token_type", Bytes::array, Bytes::raw_array<int32_t>(Bytes::i32, {3, 1, 1, 6}));
  g.put("nested", Bytes::array,
        Bytes::raw(uint32_t{Bytes::array}) + Bytes::raw(uint64_t{2}) + Bytes::raw_array<uint16_t>(Bytes::u16, {1}) +
            Bytes::raw_array({"x"}));
  g.add("token_embd.weight", {32, 4}, 2, std::string(4 * 18, 'w'));
  g.add("output_norm.weight", {32}, 0, std::string(128, 'n'));
  g.add("blk.0.ffn_up_exps.weight", {256, 2, 2}, 12, std::string(4 * 144, 'e'));
  return g;
}

void touch(const io::GgufFile& f) {
  size_t sum = 0;
  for (const io::GgufTensor& t : f.tensors()) {
    int64_t rows = 1;
    for (int d = 1; d < 4; ++d) rows *= t.dims[static_cast<size_t>(d)];
    if (t.bytes != static_cast<size_t>(rows * t.row_bytes()))
      throw std::logic_error("a tensor of the wrong size was accepted");
    for (size_t i = 0; i < t.bytes; ++i) sum += static_cast<size_t>(t.data[i]);
    if (f.find(t.name) == nullptr) throw std::logic_error("a tensor has no name");
  }
  const auto read = [&](auto&& access) {
    try {
      sum += access() ? 1 : 0;
    } catch (const Error&) {  // of another type
    }
  };
  for (const io::GgufValue& v : f.values()) {
    read([&] { return f.natural(v.key); });
    read([&] { return f.number(v.key); });
    read([&] { return f.boolean(v.key); });
    read([&] { return f.text(v.key); });
    read([&] { return f.naturals(v.key); });
    read([&] { return f.numbers(v.key); });
    read([&] { return f.texts(v.key); });
  }
  if (sum == 1) std::puts("");  // the bytes are read
}

}  // namespace

int main(int argc, char** argv) {
  fuzz::MemoryFile file;
  fuzz::Target t;
  t.name = "gguf";
  t.seeds = {seed(3).bytes(), seed(2).bytes(), Bytes().bytes()};
  for (const uint32_t type : {0u, 2u, 4u, 8u, 9u, 10u, 12u, 30u, 250u}) t.dictionary.push_back(Bytes::raw(type));
  for (const uint64_t n : {uint64_t{0}, uint64_t{1} << 31, uint64_t{1} << 61, UINT64_MAX})
    t.dictionary.push_back(Bytes::raw(n));
  // Many keys, many tensors, many tokens.
  t.large = {[] {
               Bytes g;
               for (int i = 0; i < 65'536; ++i) g.values.push_back({std::to_string(i), Bytes::u8, "1"});
               return g.bytes();
             },
             [] {
               Bytes g;
               for (int i = 0; i < 65'536; ++i)
                 g.tensors.push_back({std::to_string(i), {1}, 24, static_cast<uint64_t>(i) * 32});
               g.data = std::string(65'536 * 32, 'x');
               return g.bytes();
             },
             [] {
               Bytes g;
               g.put("tokens", Bytes::array, Bytes::raw_array(std::vector<std::string>(300'000, "token")));
               return g.bytes();
             }};
  t.run = [&](const std::string& input) {
    file.fill(input);
    touch(io::GgufFile(file.path()));
  };
  return fuzz::run(argc, argv, t);
}
