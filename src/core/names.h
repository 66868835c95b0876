// Words and the values they stand for: one table a type, which parsing, checking, printing and help all read.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/bf16.h"

namespace birkhoff {

template <class E>
struct Named {
  const char* name;
  E value;
};

// Specialised for every type whose values have names: static constexpr Named<E> table[], every value once, in the
// order that lists show.
template <class E>
struct NamesOf;

template <class E>
concept HasNames = requires {
  NamesOf<E>::table;
};

template <>
struct NamesOf<DType> {
  static constexpr Named<DType> table[] = {{dtype_name(DType::bf16), DType::bf16},
                                           {dtype_name(DType::f32), DType::f32}};
};

template <HasNames E>
const char* name_of(E value) {
  for (const Named<E>& n : NamesOf<E>::table)
    if (n.value == value) return n.name;
  return "?";  // no value of the type
}

template <HasNames E>
std::optional<E> find_named(std::string_view name) {
  for (const Named<E>& n : NamesOf<E>::table)
    if (name == n.name) return n.value;
  return std::nullopt;
}

template <HasNames E>
std::vector<std::string> names_of() {
  std::vector<std::string> names;
  for (const Named<E>& n : NamesOf<E>::table) names.emplace_back(n.name);
  return names;
}

}  // namespace birkhoff
