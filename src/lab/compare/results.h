// results.json: what stays of a study when its runs are gone. Final figures and thinned curves of every run, settings,
// machine.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "lab/compare/study.h"

namespace birkhoff::lab {

// How far a run came. The directory alone says so.
enum class RunState { absent, started, done };
RunState state_of(const std::string& directory);
// The step from which it goes on: of its last checkpoint, 0 without one.
int64_t saved_step(const std::string& directory);

struct Circumstances {
  std::string command;
  int side_by_side = 1;  // runs at a time
};

// {format, study, command, time, machine, unit, settings (those all variants share), variants: [{name, group,
// differing, runs: [{seed, status, message, figures, curves, validation, gains, maxvio, load}]}]}. A run is "done",
// "failed" (message: what it said last) or "absent"; runs of one step or more have curves. Loads over time stay of the
// first seed and four layers alone. Throws Error when a run directory cannot be read.
nlohmann::json collect_results(const Study& study, const std::vector<RunSpec>& runs, const Circumstances& c);

// Throws Error when the file is no results.json of this format.
nlohmann::json read_results(const std::string& path);

// What a run that ended badly said last, from its log; "" when it said nothing.
std::string last_message(const std::string& log);

// What "figures" of a run may hold; axes of a study name one of these.
const std::vector<std::string>& figure_names();

}  // namespace birkhoff::lab
