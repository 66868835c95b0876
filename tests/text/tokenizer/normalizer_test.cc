#include "text/tokenizer/normalizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace birkhoff::text {
namespace {

std::string normalized(const char* entry, std::string text) {
  apply_all(read_normalizer(nlohmann::json::parse(entry)), text, size_t{1} << 20);
  return text;
}

// As `tokenizers` 0.23.3: every mark is an accent, those that take room (U+093E) and those that enclose (U+20DD) among
// them.
TEST(Normalizer, StripAccentsTakesAllMarks) {
  constexpr const char* kStrip = R"({"type": "StripAccents"})";
  EXPECT_EQ(normalized(kStrip, "\u0915\u093e"), "\u0915");
  EXPECT_EQ(normalized(kStrip, "e\u0301\u20dd"), "e");
  EXPECT_EQ(normalized(kStrip, "\u1f04"), "\u1f04");
  EXPECT_EQ(normalized(R"({"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}]})", "\u1f04"),
            "\u03b1");
}

}  // namespace
}  // namespace birkhoff::text
