// What the report of a study draws, from its results: bands over seeds, paired differences over time, extremes of
// gains, points of the study's picture.
#pragma once
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

namespace birkhoff::lab {

using Curve = std::vector<std::pair<double, double>>;  // (step, value), ascending steps

// {step, mean, low, high} at the steps that all curves have: mean -+ one standard error, low and high absent with one
// curve. null without curves or common steps.
nlohmann::json band_of(const std::vector<Curve>& curves);
// The same of b[i] - a[i], with the 95 % interval of the paired difference.
nlohmann::json difference_band(const std::vector<Curve>& a, const std::vector<Curve>& b);

// {study, unit, command, time, machine, settings, summary, variants: [{name, differing, loss, validation, difference,
// gains, sites, maxvio, load, failed}], points}; keys without data are absent. What report::write_study takes.
nlohmann::json study_page(const nlohmann::json& results, const nlohmann::json& summary);

}  // namespace birkhoff::lab
