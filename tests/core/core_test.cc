#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <string>

#include "core/arena.h"
#include "core/cpu.h"
#include "core/exec.h"
#include "core/nearest.h"
#include "core/process.h"
#include "support/matrix.h"
#include "support/temp_dir.h"

namespace birkhoff {
namespace {

TEST(Bf16, RoundsToNearestEvenAndKeepsNan) {
  EXPECT_EQ(to_bf16(1.0f).bits, 0x3f80);
  EXPECT_EQ(to_bf16(1.00390625f).bits, 0x3f80);  // half way, even below
  EXPECT_EQ(to_bf16(1.01171875f).bits, 0x3f82);  // half way, even above
  EXPECT_TRUE(std::isnan(to_float(to_bf16(NAN))));
  EXPECT_EQ(to_bf16(3.4e38f).bits, 0x7f80);  // rounds to infinity
}

TEST(Process, ControlGroupsLimitMemory) {
  const test::TempDir groups;
  const std::string none = "4:cpu,cpuacct:/x\n3:memory:/a/b\n0::/c/d\n", &mount = groups.path();
  EXPECT_EQ(group_memory_limit(none, mount), SIZE_MAX);
  EXPECT_EQ(group_memory_limit("", mount), SIZE_MAX);
  groups.file("memory/a/memory.limit_in_bytes", "9223372036854771712\n");
  groups.file("memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
  groups.file("c/d/memory.max", "max\n");
  EXPECT_GE(group_memory_limit(none, mount), size_t{1} << 62);
  groups.file("memory/a/memory.limit_in_bytes", "4000000000\n");
  groups.file("memory/x/memory.limit_in_bytes", "100\n");  // of another group
  EXPECT_EQ(group_memory_limit(none, mount), 4000000000u);
  groups.file("c/memory.max", "3000000000\n");
  EXPECT_EQ(group_memory_limit(none, mount), 3000000000u) << "the group above";
  groups.file("memory.max", "2000000000\n");
  EXPECT_EQ(group_memory_limit("0::/of/outside\n", mount), 2000000000u) << "a container that sees its own alone";
  EXPECT_EQ(group_memory_limit("4:blkio,memory:/\n", mount), SIZE_MAX);
  EXPECT_LE(machine_memory_bytes(), size_t{1} << 60);
}

TEST(Arena, ScopesReleaseAndPeakRemembers) {
  Arena a(1 << 20);
  a.take<float>(100);
  const size_t used = a.used();
  {
    Arena::Scope scope(a);
    a.mat(DType::bf16, 100, 100);
    EXPECT_GT(a.used(), used);
  }
  EXPECT_EQ(a.used(), used);
  EXPECT_GE(a.peak(), used + 20000);
  EXPECT_THROW(a.take_bytes(size_t{1} << 30), ContractViolation);
}

TEST(Arena, MeasuringCountsWithoutMemory) {
  Arena a = Arena::measuring();
  a.take_bytes(size_t{1} << 37);
  EXPECT_EQ(a.peak(), size_t{1} << 37);
}

TEST(Nearest, FindsWhatWasMeant) {
  const std::vector<std::string> known{
      "hc", "mhc", "plain", "hidden_size", "topk_method", "noaux_tc", "group_limited_greedy"};
  EXPECT_EQ(nearest("mch", known), "mhc") << "two letters swapped are one mistake";
  EXPECT_EQ(nearest("hidden_sise", known), "hidden_size");
  EXPECT_EQ(nearest("noaux", known), "noaux_tc") << "not typed to its end";
  EXPECT_EQ(nearest("group_limited", known), "group_limited_greedy");
  EXPECT_EQ(nearest("", known), "hc");
  EXPECT_EQ(nearest("learning_rate", known), "");
}

TEST(Nearest, NothingIsNearToWhatIsLong) {
  EXPECT_EQ(nearest(std::string(200, 'a'), {std::string(199, 'a')}), std::string(199, 'a'));
  EXPECT_EQ(nearest(std::string(size_t{1} << 24, 'a'), {std::string(199, 'a')}), "");
}

TEST(Error, ValuesAreCutInMessages) {
  const std::string longest(100, 'a'), more = longest + "b";
  EXPECT_STREQ(Error("x", "value \"" + longest + "\", known \"k\"").what(),
               ("[x] value \"" + longest + "\", known \"k\"").c_str());
  EXPECT_STREQ(Error("x", "value \"" + more + "\", known \"k\"").what(),
               ("[x] value \"" + longest + "...\", known \"k\"").c_str());
  EXPECT_EQ(Error("x", "", "not \"" + more).hint(), "not \"" + longest + "...");
  EXPECT_EQ(shortened("\"" + std::string(99, 'a') + "\xc3\xa9\""), "\"" + std::string(99, 'a') + "...\"")
      << "no half of a character";
  EXPECT_EQ(shortened(std::string(1 << 20, 'x')).size(), 4003u);
  EXPECT_EQ(shortened(""), "");
}

TEST(Exec, RunsEveryTaskOnceAndPropagatesExceptions) {
  for (int threads : {1, 2, 3, 7}) {
    Exec e(threads);
    std::vector<std::atomic<int>> hit(1000);
    e.parallel_for(1000, [&](int64_t i) {
      WorkerScratch s;
      s.take<float>(1000 + i)[999] = 1.f;
      hit[static_cast<size_t>(i)]++;
    });
    for (auto& h : hit) EXPECT_EQ(h.load(), 1);
    EXPECT_THROW(e.parallel_for(8, [](int64_t i) { BK_CHECK(i != 5); }), ContractViolation);
  }
}

TEST(Exec, DryRunsNothing) {
  Exec e = Exec::dry_run(2);
  e.parallel_for(8, [](int64_t) { FAIL(); });
}

// Of the detected level nothing is missing, of the next one something, and a wider one lacks no less.
TEST(Cpu, MissingExtensionsAreThoseOfWiderLevels) {
  EXPECT_EQ(missing_for(detected_isa()), "");
  EXPECT_EQ(missing_for(Isa::scalar), "");
  std::string before;
  for (int level = static_cast<int>(detected_isa()) + 1; level <= static_cast<int>(Isa::amx); ++level) {
    const std::string missing = missing_for(static_cast<Isa>(level));
    EXPECT_GE(missing.size(), std::max<size_t>(1, before.size())) << missing;
    before = missing;
  }
}

TEST(View, ChecksTypesAndBounds) {
  test::Owned m(4, 6);
  EXPECT_THROW(m.view().b16(), ContractViolation);
  EXPECT_THROW(m.view().row_block(3, 2), ContractViolation);
  EXPECT_EQ(m.view().col_block(2, 3).f32(1), m.view().f32(1) + 2);
}

}  // namespace
}  // namespace birkhoff
