#include "model/config/range.h"

#include <cmath>
#include <cstdio>

#include "core/error.h"

namespace birkhoff::model {
namespace {

std::string number_text(double v) {
  char text[32];
  int exponent = 0;
  if (v >= 8192 && std::frexp(v, &exponent) == 0.5)
    std::snprintf(text, sizeof text, "2^%d", exponent - 1);
  else
    std::snprintf(text, sizeof text, "%.9g", v);
  return text;
}

[[noreturn]] void outside(const char* key, const std::string& value, const Range& range) {
  throw Error("settings", std::string(key) + ": must be in " + range.text() + ", is " + value,
              "docs/settings.md states the range of every setting");
}

}  // namespace

std::string Range::text() const {
  const std::string from = number_text(low), to = number_text(high);
  if (ends == closed) return from + " .. " + to;
  return ends == above ? "(" + from + ", " + to + "]" : "[" + from + ", " + to + ")";
}

void require_in_range(const char* key, int64_t v, const Range& range) {
  if (!range.holds(static_cast<double>(v))) outside(key, std::to_string(v), range);
}
void require_in_range(const char* key, double v, const Range& range) {
  char text[32];
  std::snprintf(text, sizeof text, "%.9g", v);
  if (!range.holds(v)) outside(key, text, range);
}
void require_in_range(const char* key, const std::vector<int64_t>& list, const Range& range) {
  for (const int64_t v : list) require_in_range(key, v, range);
}

}  // namespace birkhoff::model
