#include <gtest/gtest.h>

#include <cstdlib>

#include "core/cpu.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  birkhoff::Isa cap;
  if (const char* name = std::getenv("BIRKHOFF_ISA"); name && birkhoff::parse_isa(name, cap)) birkhoff::limit_isa(cap);
  return RUN_ALL_TESTS();
}
