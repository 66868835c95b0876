// The settings of a run that goes on, or that starts from another's weights.
#pragma once
#include <string>
#include <vector>

#include "train/run_directory.h"
#include "train/run_training.h"
#include "train/train_config.h"

namespace birkhoff::train {

// Settings of the run in `dir` with those of o over them. Model settings may not change on resume, nor what decides
// what a checkpoint holds; others may, and are named in notes. Throws Error with both values.
RunConfig resumed_config(const TrainOptions& o, const RunDirectory& dir, std::vector<std::string>& notes);

// What the run was started with (its run.json, `file`): its weights' origin, and its data unless other data is given.
// Files of the run's own data that changed since are refused, with both sizes and checksums.
void take_up(const std::string& file, TrainOptions& o, std::vector<std::string>& notes);

// The model of --init, a resolved model directory, with the training settings that were given.
RunConfig further_config(const TrainOptions& o, const std::string& directory, std::vector<std::string>& notes);

}  // namespace birkhoff::train
