// Sessions in files: safetensors with the ids, the bytes of the caches, and what they belong to.
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "infer/session.h"
#include "io/manifest.h"
#include "io/safetensors.h"
#include "model/config/config.h"
#include "model/weights.h"

namespace birkhoff::infer {
namespace {

constexpr const char* kFormat = "birkhoff session 2";
constexpr const char* kIds = "ids";
constexpr const char* kCaches = "caches";
constexpr const char* kChecksum = "checksum";

std::string_view bytes_of(const io::TensorEntry& t) { return {reinterpret_cast<const char*>(t.data), t.bytes}; }

// What a model is as far as caches are concerned: its configuration, arithmetic, what products read, and of every
// matrix a sample, of masters across all of it: training moves rows apart.
std::string model_name(const model::Model& m) {
  uint64_t sum = io::checksum(model::config_to_json(m.config).dump() + dtype_name(m.compute));
  const auto add = [&](const void* data, size_t bytes) {
    sum = io::checksum({static_cast<const char*>(data), bytes}, sum);
  };
  constexpr size_t kSample = 256;
  add(m.weights.norm.data, static_cast<size_t>(m.weights.norm.bytes()));
  for (const ops::StoredMatrix& matrix : m.stored)
    for (const ops::StoredMatrix::Part& part : matrix.parts)
      add(part.tensor.data, std::min(kSample, static_cast<size_t>(part.tensor.row_bytes())));
  if (m.block) {
    constexpr int64_t kValues = 64;
    for (const model::ParameterInfo& p : m.parameters)
      for (int64_t i = 0; i < p.size(); i += std::max<int64_t>(1, p.size() / kValues))
        add(m.block + p.offset + i, sizeof(float));
  }
  for (const ops::QuantMatrix& q : m.quantised) add(&q.type, sizeof q.type);
  if (m.adapter_block) add(m.adapter_block, sizeof(float) * static_cast<size_t>(model::parameter_elements(m.adapters)));
  return std::to_string(sum);
}

// Of all that the file says and holds.
std::string checksum_of(std::map<std::string, std::string> metadata, std::string_view ids, std::string_view caches) {
  metadata.erase(kChecksum);
  uint64_t sum = io::checksum(caches, io::checksum(ids));
  for (const auto& [key, value] : metadata) sum = io::checksum(key + "=" + value + "\n", sum);
  return std::to_string(sum);
}

// What is kept of a token beside its type, and how it was made.
std::string attention_name(const model::ModelConfig& c) {
  return c.uses_mla() ? std::string("latent ") + name_of(c.latent_attention) : "of its own kind";
}

}  // namespace

void Session::save(const std::string& path) const {
  const std::string caches = cache_.bytes();
  const auto entry = [](const char* name, io::TensorType type, int64_t size, const void* data, size_t bytes) {
    return io::TensorEntry{name, type, {size}, static_cast<const std::byte*>(data), bytes};
  };
  const io::TensorEntry tensors[] = {
      entry(kIds, io::TensorType::i32, length(), ids_.data(), ids_.size() * sizeof(int32_t)),
      entry(kCaches, io::TensorType::u8, static_cast<int64_t>(caches.size()), caches.data(), caches.size())};
  std::map<std::string, std::string> metadata = {{"format", kFormat},
                                                 {"model", model_name(engine_->model())},
                                                 {"cache", ops::cache_type_name(cache_.pool().type())},
                                                 {"attention", attention_name(engine_->model().config)},
                                                 {"capacity", std::to_string(capacity())},
                                                 {"prompt", std::to_string(prompt_tokens_)},
                                                 {"modules", std::to_string(cache_.pool().predictors())},
                                                 {"predicted", std::to_string(std::min(predicted_, length()))},
                                                 {"scope", std::to_string(scope_)}};
  metadata[kChecksum] = checksum_of(metadata, bytes_of(tensors[0]), bytes_of(tensors[1]));
  io::write_safetensors(path, tensors, metadata);
}

Session Session::restore(const Engine& engine, const std::string& path) {
  const io::SafetensorsFile file(path);
  const auto value = [&](const char* key) {
    const auto found = file.metadata().find(key);
    return found == file.metadata().end() ? std::string() : found->second;
  };
  const auto require = [&](const char* key, const std::string& want, const char* hint) {
    if (value(key) != want)
      throw Error("session", path + ": " + key + " \"" + value(key) + "\", here it is \"" + want + "\"", hint);
  };
  require("format", kFormat, "give a file that a session was saved to");
  require("modules", std::to_string(engine.caches().predictors()),
          "open the model with, or without, its prediction modules as it was then");
  require("model", model_name(engine.model()), "go on with the model and the number type that it was saved with");
  require("cache", ops::cache_type_name(engine.caches().type()),
          "go on with the type of caches that it was saved with");
  require("attention", attention_name(engine.model().config), "go on with the --mla that it was saved with");
  const io::TensorEntry *ids = file.find(kIds), *caches = file.find(kCaches);
  const auto number = [&](const char* key) { return std::strtoll(value(key).c_str(), nullptr, 10); };
  const int64_t prompt = number("prompt"), capacity = number("capacity"), predicted = number("predicted");
  if (!ids || !caches || ids->type != io::TensorType::i32 ||
      value(kChecksum) != checksum_of(file.metadata(), bytes_of(*ids), bytes_of(*caches)) || prompt < 0 ||
      prompt > ids->size() || ids->size() > capacity || predicted < 0 || predicted > ids->size())
    throw Error("session", path + ": is damaged", "read its text again");
  check_ids(engine.model().config, {ids->as<int32_t>(), static_cast<size_t>(ids->size())});
  Session session(engine, capacity);
  session.scope_ = std::strtoull(value("scope").c_str(), nullptr, 10);
  session.cache_.restore(bytes_of(*caches), ids->size());
  session.ids_.assign(ids->as<int32_t>(), ids->as<int32_t>() + ids->size());
  session.prompt_tokens_ = prompt;
  session.predicted_ = predicted;
  return session;
}

}  // namespace birkhoff::infer
