// Values of CPython 3.11's random.
#include "eval/tasks/python_random.h"

#include <gtest/gtest.h>

namespace birkhoff::eval {
namespace {

using Rows = std::vector<int64_t>;

TEST(PythonRandom, FirstOutputsAreThoseOfPython) {
  PythonRandom r(1234);
  for (const uint32_t expected : {4150886329U, 3342196574U, 1892932127U, 501869158U, 32175636U})
    EXPECT_EQ(r.next(), expected);
  EXPECT_EQ(PythonRandom(0).next(), 3626764237U);
  EXPECT_EQ(PythonRandom(5).next(), 2675342405U);
  EXPECT_EQ(PythonRandom((uint64_t{1} << 32) + 5).next(), 675479763U);
}

TEST(PythonRandom, SamplesAreThoseOfPython) {
  struct Case {
    int64_t n, k;
    std::vector<Rows> samples;
  };
  const std::vector<Case> cases = {
      {7473, 5, {{6374, 3610, 957, 61, 742}, {7462, 6610, 4769, 286, 5501}, {5677, 687, 806, 6279, 2905}}},
      {5021,
       11,
       {{3610, 957, 61, 742, 4769, 286, 687, 806, 2905, 1939, 142},
        {252, 129, 2835, 3966, 3797, 1216, 747, 1499, 937, 119, 4121},
        {3987, 2046, 528, 4432, 3816, 561, 4927, 728, 4219, 4743, 376}}},
      {1000, 6, {{989, 796, 451, 119, 7, 92}, {932, 965, 961, 826, 596, 35}, {687, 709, 85, 100, 784, 363}}},
      {21, 5, {{14, 3, 0, 2, 1}, {2, 3, 11, 7, 0}, {0, 20, 11, 15, 14}}},
      {22, 5, {{14, 3, 0, 2, 18}, {1, 21, 2, 3, 11}, {7, 0, 11, 20, 19}}},
      {12, 8, {{7, 1, 0, 10, 9, 5, 6, 11}, {1, 5, 3, 0, 8, 6, 7, 2}, {10, 9, 7, 11, 2, 0, 1, 6}}}};
  for (const Case& c : cases) {
    PythonRandom r(1234);
    for (const Rows& expected : c.samples) EXPECT_EQ(r.sample(c.n, c.k), expected) << c.n << ", " << c.k;
  }
}

TEST(PythonRandom, ASampleOfAllIsAPermutation) {
  PythonRandom r(7);
  Rows rows = r.sample(9, 9);
  std::sort(rows.begin(), rows.end());
  EXPECT_EQ(rows, (Rows{0, 1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_TRUE(r.sample(4, 0).empty());
}

}  // namespace
}  // namespace birkhoff::eval
