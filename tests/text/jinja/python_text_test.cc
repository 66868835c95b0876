#include "text/jinja/python_text.h"

#include <gtest/gtest.h>

namespace birkhoff::text::chat {
namespace {

std::string lowered(const std::string& s) { return py_lower(MaskedText(s)).bytes(); }

TEST(PythonText, LowerHasTheTwoSpecialCases) {
  EXPECT_EQ(lowered("\u0130"), "i\u0307");
  EXPECT_EQ(lowered("ΑΣ ΑΣ. ΑΣΑ Σ"), "ας ας. ασα σ") << "sigma at the end of a word";
  EXPECT_EQ(lowered("Α.Σ'Α ΑΣ\u0301"), "α.σ'α ας\u0301") << "marks and apostrophes are no letters";
}

}  // namespace
}  // namespace birkhoff::text::chat
