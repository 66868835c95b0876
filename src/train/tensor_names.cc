#include "train/tensor_names.h"

#include <memory>
#include <vector>

#include "core/error.h"
#include "text/unicode/matcher.h"

namespace birkhoff::train {
namespace {

constexpr size_t kMostBytes = 400;

// The engine says "[where] regular expression PATTERN...: why".
[[noreturn]] void fail(const std::string& pattern, const std::string& what, const Error& e) {
  const std::string said = e.what();
  throw Error("settings", "trainable: \"" + pattern + "\" " + what + ": " + said.substr(said.rfind(": ") + 2),
              "e.g. trainable=layers\\.[01]\\.self_attn");
}

}  // namespace

std::function<bool(const std::string& name)> tensors_matching(const std::string& pattern) {
  if (pattern.empty()) return nullptr;
  if (pattern.size() > kMostBytes)
    throw Error("settings",
                "trainable: an expression of " + std::to_string(pattern.size()) + " bytes, at most " +
                    std::to_string(kMostBytes) + " are read: " + pattern.substr(0, 60) + "...",
                "name groups of tensors, e.g. trainable=layers\\.[01]\\.self_attn");
  try {
    std::shared_ptr<const text::Matcher> matcher = text::make_oniguruma_matcher(pattern);
    return [matcher, pattern](const std::string& name) {
      std::vector<text::Span> found;
      try {
        matcher->find(name, found);
      } catch (const Error& e) {
        fail(pattern, "cannot be searched for in " + name, e);
      }
      return !found.empty();
    };
  } catch (const Error& e) {
    fail(pattern, "is no regular expression", e);
  }
}

}  // namespace birkhoff::train
