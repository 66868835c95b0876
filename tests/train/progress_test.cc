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

// A line never reaches the last column, where a terminal would wrap it.
TEST(Progress, LinesFitTheTerminal) {
  EXPECT_EQ(progress_line("5/10", "loss 1.0", 0.5, 80), "[############............] 5/10  loss 1.0");
  EXPECT_EQ(progress_line("5/10", "loss 1.0", 0.5, 24), "[###...] 5/10  loss 1.0");
  EXPECT_EQ(progress_line("5/10", "loss 1.0", 0.5, 23), "5/10  loss 1.0");
  EXPECT_EQ(progress_line("5/10", "loss 1.0", 0.5, 10), "5/10  los");
  EXPECT_EQ(progress_line("5/10", "loss 1.0", 1, 1), "");
}

// Between two lines the speed is tokens over time, not the last step's.
TEST(Progress, SpeedIsTheMeanSinceTheLastLine) {
  Progress progress(4, false, false);
  testing::internal::CaptureStderr();
  progress.step(1, 2.0, 100, 1.0, std::nullopt);  // the first is shown at once
  progress.step(2, 2.0, 100, 1.0, std::nullopt);
  progress.step(3, 2.0, 100, 0.5, std::nullopt);
  progress.step(4, 2.0, 100, 0.5, 1.5);  // the last always
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("step 1/4  loss 2.0000  100 tokens/s"), std::string::npos) << said;
  EXPECT_NE(said.find("step 4/4  loss 2.0000  val 1.5000  150 tokens/s"), std::string::npos) << said;
  EXPECT_EQ(said.find("step 2/4"), std::string::npos) << said;
}

TEST(Progress, DurationsAreClockTimes) {
  EXPECT_EQ(format_duration(0), "0:00");
  EXPECT_EQ(format_duration(245.2), "4:05");
  EXPECT_EQ(format_duration(3723), "1:02:03");
  EXPECT_EQ(format_duration(-1), "0:00");
}

}  // namespace
}  // namespace birkhoff::train
