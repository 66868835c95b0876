#include "checkpoint/content_hash.h"

#include <xxhash.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <vector>

#include "checkpoint/adapter.h"
#include "checkpoint/model_files.h"
#include "io/mapped_file.h"
#include "io/user_files.h"

namespace birkhoff::checkpoint {
namespace {

constexpr size_t kHashedChunk = size_t{16} << 20;

// A hash for every chunk, so that threads share the work and their number changes nothing.
void add_file(const Exec& exec, const std::string& path, std::string& all) {
  const io::MappedFile file(path);
  const auto bytes = std::as_bytes(file.bytes());
  std::vector<XXH128_hash_t> chunks((bytes.size() + kHashedChunk - 1) / kHashedChunk);
  exec.parallel_for(static_cast<int64_t>(chunks.size()), [&](int64_t i) {
    const size_t begin = static_cast<size_t>(i) * kHashedChunk;
    chunks[static_cast<size_t>(i)] = XXH3_128bits(bytes.data() + begin, std::min(kHashedChunk, bytes.size() - begin));
  });
  all += std::to_string(bytes.size()) + " ";
  for (const XXH128_hash_t& h : chunks) all.append(reinterpret_cast<const char*>(&h), sizeof h);
}

}  // namespace

std::string content_hash(const Exec& exec, const std::string& path, const std::string& adapter) {
  std::string all = read_model_config(path).dump();
  for (const std::string& file : ModelFiles(path).paths()) add_file(exec, file, all);
  if (io::is_directory(path))
    for (const char* name : {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
                             "generation_config.json"})
      if (const std::string file = path + "/" + name; io::is_file(file)) {
        all += std::string(name) + " ";
        add_file(exec, file, all);
      }
  if (!adapter.empty()) {
    const std::string directory = resolve_adapter_directory(adapter);
    for (const std::string& name : io::list_directory(directory))
      if (name.ends_with(".safetensors") || name == "adapter_config.json") add_file(exec, directory + "/" + name, all);
  }
  const XXH128_hash_t h = XXH3_128bits(all.data(), all.size());
  char text[40];
  std::snprintf(text, sizeof text, "%016" PRIx64 "%016" PRIx64, static_cast<uint64_t>(h.high64),
                static_cast<uint64_t>(h.low64));
  return text;
}

}  // namespace birkhoff::checkpoint
