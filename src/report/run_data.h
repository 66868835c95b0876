// What a page shows of a run, as JSON for its drawing code: curves thinned to what a screen can show.
#pragma once
#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace birkhoff::report {

// Means of consecutive groups, at most `most` of them; NaN and infinity are skipped, a group of them alone gives NaN.
std::vector<double> thinned(const std::vector<double>& values, size_t most);
// Exponential moving average that starts at the first value: each new one weighs 2 / (span + 1), or 1/i while fewer
// than that came.
std::vector<double> smoothed(const std::vector<double>& values, double span);

// Five digits are more than a plot shows; null for what is not finite.
nlohmann::json number(double v);
nlohmann::json numbers(const std::vector<double>& values);

// The records of a run's metrics.jsonl in the order of their steps: a later record of a step (after a resume) replaces
// an earlier, a torn last line is left out. Throws Error when the file cannot be read.
std::vector<nlohmann::json> read_metrics(const std::string& path);

// {name, summary, curves, validation, gains, maxvio, load, phases, config, machine}; absent keys where a run has no
// such data. Throws Error when the directory is no run or has no finished step.
nlohmann::json run_data(const std::string& run);

}  // namespace birkhoff::report
