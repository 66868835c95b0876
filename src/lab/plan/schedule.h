// Which runs of a study are left to do, what each will take, and their turns.
#pragma once
#include <atomic>
#include <map>
#include <string>
#include <vector>

#include "lab/compare/results.h"
#include "lab/compare/study.h"

namespace birkhoff::lab {

// How a machine's cores are shared: small models train more tokens in all with one thread each side by side than one
// after the other.
struct Sharing {
  int side_by_side = 1, threads_each = 1;
};
// As many runs at a time as there are threads, and as the largest plans fit in `memory` bytes together; at least one.
// plans: bytes of each run.
Sharing share_machine(std::vector<size_t> plans, int threads, size_t memory);

// What the runs of each variant will hold in memory with so many threads, bytes. Throws Error when one alone does not
// fit.
std::vector<size_t> planned_bytes(const Study& study, const std::vector<RunSpec>& runs, int threads);

// Seconds that one run takes from its start, by variant: a few steps of the first run of each are measured on its data
// with `threads` threads.
std::vector<double> measured_seconds(const Study& study, const std::vector<RunSpec>& runs, int threads);

// Throws Error when the study's data cannot be read or are too short for a window of some run.
void require_data(const Study& study, const std::vector<RunSpec>& runs);

// Throws Error when a run that is already there was made with other settings or data, naming both values.
void require_same_settings(const Study& study, const std::vector<RunSpec>& runs);

// The arguments of `birkhoff train` for a run, new or to go on with. Writes the run's settings beside its directory.
std::vector<std::string> train_arguments(const std::string& program, const Study& study, const RunSpec& run,
                                         int threads);

}  // namespace birkhoff::lab
