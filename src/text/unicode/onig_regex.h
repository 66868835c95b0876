// Oniguruma, for what stands behind Matcher and PythonRegex.
#pragma once
#include <oniguruma.h>

#include <memory>
#include <string>
#include <string_view>

namespace birkhoff::text {

class OnigRegex {
 public:
  enum class Syntax { oniguruma, python };
  // source: what is compiled; pattern: what messages name; where: who speaks in them. Throws Error.
  OnigRegex(const std::string& source, Syntax syntax, std::string pattern, std::string where);

  // The first match that begins at byte `from` or behind it goes to region; text is valid UTF-8 under 2 GiB. not_empty:
  // none of no characters. Throws Error when the engine gives up.
  bool search(std::string_view text, size_t from, OnigRegion* region, bool not_empty = false) const;

 private:
  [[noreturn]] void fail(const std::string& why, const std::string& hint = "") const;
  void check_size(const std::string& source) const;

  std::string pattern_, where_;
  std::unique_ptr<regex_t, void (*)(regex_t*)> regex_{nullptr, [](regex_t* r) { onig_free(r); }};
};

using Region = std::unique_ptr<OnigRegion, void (*)(OnigRegion*)>;
inline Region make_region() {
  return {onig_region_new(), [](OnigRegion* r) { onig_region_free(r, 1); }};
}

}  // namespace birkhoff::text
