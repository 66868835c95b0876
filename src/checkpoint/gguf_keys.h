// Metadata of one architecture: keys are "ARCHITECTURE.name".
#pragma once
#include <algorithm>
#include <optional>
#include <string>

#include "io/gguf.h"

namespace birkhoff::checkpoint {

class GgufKeys {
 public:
  GgufKeys(const io::GgufModel& m, std::string architecture)
      : model(m), file(m.metadata()), prefix_(std::move(architecture) + ".") {}

  const io::GgufModel& model;
  const io::GgufFile& file;

  std::string full(const char* name) const { return prefix_ + name; }
  [[noreturn]] void fail(const char* name, const std::string& what, const std::string& hint = "") const {
    file.fail(full(name) + what, hint);
  }
  // A natural number below 2^31, or an array of equal ones (one a layer).
  std::optional<int64_t> find_size(const char* name) const {
    const auto list = file.naturals(full(name));
    if (!list) return std::nullopt;
    if (list->empty()) fail(name, " is an empty array");
    const auto [least, most] = std::minmax_element(list->begin(), list->end());
    if (*least != *most)
      fail(name,
           " is " + std::to_string(*least) + " to " + std::to_string(*most) + ": layers that differ are not supported");
    if (*most > INT32_MAX) fail(name, " is " + std::to_string(*most) + ", at most 2147483647 is read");
    return static_cast<int64_t>(*most);
  }
  int64_t size(const char* name) const {
    const auto n = find_size(name);
    if (!n) fail(name, " is missing");
    return *n;
  }
  int64_t size(const char* name, int64_t otherwise) const { return find_size(name).value_or(otherwise); }
  std::optional<double> number(const char* name) const { return file.number(full(name)); }
  double required_number(const char* name) const {
    const auto n = number(name);
    if (!n) fail(name, " is missing");
    return *n;
  }
  // An array, or a single number that stands for all.
  std::optional<std::vector<double>> numbers(const char* name) const {
    const io::GgufValue* v = file.value(full(name));
    if (!v || v->type == io::GgufValueType::array) return file.numbers(full(name));
    return std::vector<double>{required_number(name)};
  }
  void require(const char* name, int64_t only, int64_t is) const {
    if (is != only) fail(name, " is " + std::to_string(is) + ", only " + std::to_string(only) + " is supported");
  }
  std::optional<bool> boolean(const char* name) const { return file.boolean(full(name)); }
  std::optional<std::string> text(const char* name) const {
    const auto t = file.text(full(name));
    return t ? std::optional(std::string(*t)) : std::nullopt;
  }

 private:
  std::string prefix_;
};

}  // namespace birkhoff::checkpoint
