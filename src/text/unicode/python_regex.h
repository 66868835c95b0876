// Regular expressions as Python's re module reads them, with their groups.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace birkhoff::text {

class OnigRegex;

class PythonRegex {
 public:
  // Throws Error naming the pattern when it is none, or one that Python has and this has not (conditional groups).
  explicit PythonRegex(const std::string& pattern);
  ~PythonRegex();
  PythonRegex(PythonRegex&&) noexcept;
  PythonRegex& operator=(PythonRegex&&) noexcept;

  // The whole match, then its groups; none of a group that took no part.
  using Groups = std::span<const std::optional<std::string_view>>;
  // Matches from left to right as re.finditer gives them, until seen returns false. text: valid UTF-8 under 2 GiB.
  // Thread-safe. Throws Error when the engine gives up after too many attempts, which is no statement on matches.
  void find_all(std::string_view text, const std::function<bool(Groups)>& seen) const;
  // re.sub: with appends what stands instead of a match.
  std::string replaced(std::string_view text, const std::function<void(Groups, std::string& out)>& with) const;
  std::string without(std::string_view text) const;  // re.sub(pattern, "", text)

 private:
  std::unique_ptr<const OnigRegex> regex_;
};

}  // namespace birkhoff::text
