// What a study found, from its results alone: means over seeds, paired differences to the first variant, the table.
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace birkhoff::lab {

// Of one figure of a variant: {n, mean, error} over its finished runs; error is null below two, all is null below one.
nlohmann::json figure_mean(const nlohmann::json& variant, const std::string& key);

// {variants: [{name, group, seeds, failed, <figure>: {n, mean, error}, ..., difference: {n, mean, error, low, high}}],
// best: [{group, variant, val_loss, difference}]}. difference: of val_loss to the first variant over the seeds both
// finished, 95 % interval of Student's t; absent for the first. gain_max_token and gain_min_token are extremes over
// seeds. best, where the study asks for it: the variant of each group with the lowest mean loss (chosen by that same
// loss), differences to the first group's.
nlohmann::json summarise(const nlohmann::json& results);

// The summary as lines of text with a head.
std::string table_text(const nlohmann::json& results, const nlohmann::json& summary);

}  // namespace birkhoff::lab
