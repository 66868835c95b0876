// What a plan of memory says, and what it costs to make one.
#include "model/memory_plan.h"

#include <fstream>

#include "model/config/settings_of_models.h"
#include "support/temp_dir.h"

namespace birkhoff::test {
namespace {

TEST(MemoryPlan, TheHintNamesWhatNeedsMost) {
  const struct {
    size_t model::MemoryPlan::*part;
    const char* hint;
  } cases[] = {{&model::MemoryPlan::weights, "a smaller model"},
               {&model::MemoryPlan::kept, "recompute=layer"},
               {&model::MemoryPlan::workers, "lower --threads"}};
  for (const auto& [part, hint] : cases) {
    model::MemoryPlan plan;
    plan.weights = plan.kept = plan.workers = size_t{1} << 20;
    plan.*part = size_t{1} << 60;
    expect_error([&] { model::require_fits(plan); }, {"the run needs", "this machine has", hint});
  }
}

TEST(MemoryPlan, MoreExpertsThanAnyoneListsAreRefused) {
  const auto planned = [](const char* layers) {
    const train::RunConfig c = make(base(), {"n_routed_experts=1024", layers});
    model::plan_training(c.model, DType::bf16, 1, 16, model::Recompute::none, 1);
  };
  expect_error([&] { planned("num_hidden_layers=10000"); },
               {"10000 layers of n_routed_experts 1024", "at most 262144", "lower num_hidden_layers"});
  planned("num_hidden_layers=3");
}

TEST(MemoryPlan, WhatDoesNotFitIsRefusedWithNumbersAndAHint) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the thread sanitizer leaves no address space for a plan of a tebibyte";
#endif
  train::RunConfig c =
      make(base(), {"hidden_size=16384", "num_hidden_layers=500", "intermediate_size=65536", "seq_len=1024"});
  const auto plan = model::plan_training(c.model, DType::bf16, 8, 1024, model::Recompute::none, 2);
  EXPECT_GT(plan.total(), size_t{1} << 40);
  expect_error([&] { model::require_fits(plan); },
               {"the run needs", "this machine has", "gradients", "total", "smaller"});
  EXPECT_THROW(model::plan_training(c.model, DType::bf16, int64_t{1} << 20, 2047, model::Recompute::none, 2), Error)
      << "beyond what can be planned";
}

// Tokens are planned for, not held: 2^24 of them would be 64 MiB for each list.
TEST(MemoryPlan, PlanningCostsNoMemory) {
  train::RunConfig c = make(base(), {});
  const auto resident = [] {
    std::ifstream in("/proc/self/statm");
    long pages = 0;
    in >> pages >> pages;
    return pages * 4096L;
  };
  const long before = resident();
  for (auto policy : {model::Recompute::none, model::Recompute::site, model::Recompute::layer})
    EXPECT_GT(model::plan_training(c.model, DType::f32, int64_t{1} << 19, 32, policy, 2).kept, size_t{1} << 30);
  EXPECT_LT(resident() - before, 8L << 20);
}

TEST(MemoryPlan, RecomputingNeedsLess) {
  const train::RunConfig c = make(base(), {});
  const auto kept = [&](model::Recompute p) { return model::plan_training(c.model, DType::bf16, 8, 256, p, 1).kept; };
  EXPECT_LT(kept(model::Recompute::site), kept(model::Recompute::none));
  EXPECT_LT(kept(model::Recompute::layer), kept(model::Recompute::site));
}

}  // namespace
}  // namespace birkhoff::test
