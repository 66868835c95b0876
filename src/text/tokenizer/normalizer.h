// The normalizers of tokenizer.json: they rewrite the text before anything is cut.
#pragma once
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace birkhoff::text {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // Valid UTF-8 in and out; thread-safe. Throws Error rather than write more than `limit` bytes (growth.h) by repeating
  // what the file says; a step that grows by what characters are is checked by apply_all.
  virtual void apply(std::string& text, size_t limit) const = 0;
};

// The steps of a "normalizer" entry in order; none for null and for an empty Sequence. Throws Error naming an unknown
// component, field or value.
std::vector<std::unique_ptr<Normalizer>> read_normalizer(const nlohmann::json& entry);

// All of them. Throws Error: more than `limit` bytes after any of them.
void apply_all(const std::vector<std::unique_ptr<Normalizer>>& steps, std::string& text, size_t limit);

}  // namespace birkhoff::text
