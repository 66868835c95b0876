// Which form latent attention takes over a cache: values tell them apart only by rounding, so the rule is asked itself.
#include <gtest/gtest.h>

#include "layers/mla.h"

namespace birkhoff::test {
namespace {

using layers::Mla;
using layers::MlaForm;

bool absorbed(MlaForm form, int64_t cached, int64_t tokens) {
  Mla::Spec s;
  s.dim = 16, s.heads = 2, s.nope = 6, s.rope = 4, s.v = 5, s.kv_lora = 8;
  Arena arena = Arena::measuring();
  Mla::Cache cache = Mla::Cache::take(arena, s, f32_t, cached + tokens);
  cache.form = form;
  return Mla::reserve(arena, s, f32_t, tokens, false, &cache, cached).absorbed();
}

TEST(MlaForm, AutomaticAbsorbsOnceThereAreAsManyCachedTokensAsNewOnes) {
  EXPECT_FALSE(absorbed(MlaForm::automatic, 0, 1)) << "nothing is cached";
  EXPECT_FALSE(absorbed(MlaForm::automatic, 0, 64));
  EXPECT_FALSE(absorbed(MlaForm::automatic, 1, 2));
  EXPECT_FALSE(absorbed(MlaForm::automatic, 63, 64));
  EXPECT_TRUE(absorbed(MlaForm::automatic, 64, 64));
  EXPECT_TRUE(absorbed(MlaForm::automatic, 1, 1));
  EXPECT_TRUE(absorbed(MlaForm::automatic, 1000, 7));
}

TEST(MlaForm, AChosenFormIsTaken) {
  for (const int64_t cached : {0, 3, 100}) {
    EXPECT_FALSE(absorbed(MlaForm::expanded, cached, 3));
    EXPECT_TRUE(absorbed(MlaForm::absorbed, cached, 3));
  }
}

}  // namespace
}  // namespace birkhoff::test
