// "Did you mean ...?"
#pragma once
#include <string>
#include <vector>

namespace birkhoff {

// The candidate with the smallest edit distance to name, or "" when none is near (more than a third of its letters differ).
std::string nearest(const std::string& name, const std::vector<std::string>& candidates);

}  // namespace birkhoff
