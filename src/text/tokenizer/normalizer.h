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
  virtual void apply(std::string& text) const = 0;  // valid UTF-8 in and out; thread-safe
};

// The steps of a "normalizer" entry in order; none for null and for an empty Sequence. Throws Error naming an unknown
// component, field or value.
std::vector<std::unique_ptr<Normalizer>> read_normalizer(const nlohmann::json& entry);

}  // namespace birkhoff::text
