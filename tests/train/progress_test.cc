#include "train/progress.h"

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>

namespace birkhoff::train {
namespace {

// The steps before a resumption took no time of this process: they must not make the ones to come look short.
TEST(Progress, TimeLeftCountsStepsSinceTheBeginning) {
  Progress progress(100, false, false);
  testing::internal::CaptureStderr();
  progress.begin(50);
  std::this_thread::sleep_for(std::chrono::milliseconds(40));
  progress.show(51, "");
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(said.rfind("step 51/100  ", 0), 0u) << said;
  EXPECT_EQ(said.find("0:00 left"), std::string::npos) << said;  // 49 steps of at least 40 ms
}

TEST(Progress, DurationsAreClockTimes) {
  EXPECT_EQ(format_duration(0), "0:00");
  EXPECT_EQ(format_duration(245.2), "4:05");
  EXPECT_EQ(format_duration(3723), "1:02:03");
  EXPECT_EQ(format_duration(-1), "0:00");
}

}  // namespace
}  // namespace birkhoff::train
