// The read test reads everything that it counts. What it finds is the machine's affair: no time is asserted.
#include "ops/rows/read_bandwidth.h"

#include "kernels/rows/read_stream.h"
#include "support/matrix.h"

namespace birkhoff::test {
namespace {

TEST(ReadBandwidth, EveryElementIsRead) {
  for (Isa isa : machine_isas()) {
    const IsaScope scope(isa);
    for (int64_t n : {0, 1, 7, 127, 128, 129, 1000}) {
      std::vector<float> values(static_cast<size_t>(n));
      for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i + 1);
      EXPECT_EQ(kernels::read_stream_kernels().sum(values.data(), n), static_cast<float>(n * (n + 1) / 2))
          << isa_name(isa) << " " << n;
    }
  }
}

TEST(ReadBandwidth, IsAFigureForAnyNumberOfThreads) {
  for (int threads : {1, 3}) {
    const double found = ops::read_bandwidth(Exec(threads));
    EXPECT_TRUE(std::isfinite(found) && found > 0) << threads << " threads: " << found;
  }
}

}  // namespace
}  // namespace birkhoff::test
