// Strings that end a text, whichever tokens they are made of.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace birkhoff::infer {

// Passes a text on as it grows, up to the stop string that ends first (of those that end together, the longest).
class StopStrings {
 public:
  // "" never stops. keep: the string is part of the text; without it, what may still become one is held back.
  explicit StopStrings(const std::vector<std::string>& stops, bool keep = true);
  // What can be shown of the text once part has come. After a stop there is nothing more to push.
  std::string push(std::string part);
  bool stopped() const { return stopped_; }
  std::string finish();  // what was held back of a text that ended without a stop

 private:
  size_t may_begin() const;

  std::vector<std::string> stops_;
  bool keep_;
  size_t longest_ = 0;
  std::string tail_;   // shorter than the longest, so that no end is found twice
  size_t unsaid_ = 0;  // of its end
  bool stopped_ = false;
};

}  // namespace birkhoff::infer
