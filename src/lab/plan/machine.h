// What the planner knows of a machine, and how it is measured.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "train/train_config.h"

namespace birkhoff::lab {

inline constexpr double kGib = 1 << 30;

// One machine, all its cores together.
struct Machine {
  std::string cpu;
  int cores = 1;
  double memory_bytes = 0;
  double flops = 0;       // peak of a large product in the compute type, operations a second
  double read_bytes = 0;  // sequential read, bytes a second
  double efficiency = 0;  // model flops of forward and backward over what the peak could have done in their time
};

// A training run that has the shapes of `c` at a small part of its cost: one layer from the middle (two of V4's, whose
// kinds alternate) with the same share of the vocabulary, about 40 GFLOP a step, and so many experts that each gets as
// many tokens as in a part of the whole. Above 80 million parameters hidden_size and the heads are halved until they
// are fewer. Everything is trained, nothing recomputed.
train::RunConfig slice_of(const train::RunConfig& c);

// Peak and bandwidth (train::measure_peaks) and a few steps of slice_of(c) on synthetic tokens: seconds. Throws Error
// when not even the slice fits into memory.
Machine measure_machine(const train::RunConfig& c, int threads);

// {cpu, cores, memory_gib, gemm_gflops, read_gbs, efficiency}
nlohmann::json to_json(const Machine& m);
// Reads what to_json wrote. Throws Error naming a key that is missing, no number, or not positive; name: whose JSON it
// is.
Machine machine_from_json(const nlohmann::json& j, const std::string& name);

}  // namespace birkhoff::lab
