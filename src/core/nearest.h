// "Did you mean ...?"
#pragma once
#include <string>
#include <vector>

namespace birkhoff {

// The candidate with the smallest edit distance to name (a swap of neighbours counts one, a missing end at most two),
// or "" when none is near: more than two letters and more than a third of them differ.
std::string nearest(const std::string& name, const std::vector<std::string>& candidates);

}  // namespace birkhoff
