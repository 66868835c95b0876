// Which tensors of a model the setting `trainable` means.
#pragma once
#include <functional>
#include <string>

namespace birkhoff::train {

// pattern: a regular expression, searched for in names of tensors; nullptr for "". Read and run by the engine of the
// tokenizers, whose limits end nested and backtracking expressions with an Error, when it is made or when it is used.
std::function<bool(const std::string& name)> tensors_matching(const std::string& pattern);

}  // namespace birkhoff::train
