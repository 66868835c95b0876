// A study: variants of one model, each trained with several seeds, and the claim that their comparison tests
// (docs/compare.md).
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "train/train_config.h"

namespace birkhoff::lab {

struct Variant {
  std::string name;   // also the name of a directory
  std::string group;  // "": none. Variants of a group are joined in the study's picture
  nlohmann::json set = nlohmann::json::object();
};

// A picture of the study's own: one point a variant. x and y name a figure (figure_names) or a setting with a number.
struct Axes {
  std::string x, y, title, x_title, y_title;
  bool log_x = false, log_y = false;
};

struct Study {
  std::string name, claim, source, preset;
  nlohmann::json base = nlohmann::json::object();  // settings below those of the study: a preset's, a file's
  nlohmann::json set = nlohmann::json::object();   // of all variants
  int64_t seeds = 3;
  std::vector<std::string> data;  // PATH[@WEIGHT], as train takes them
  std::vector<Variant> variants;
  std::optional<Axes> axes;
  bool best_of_groups = false;  // groups are compared by their best variants
};

// Reads and checks a study file. Throws Error: no JSON object, unknown or ill-typed fields, names that no directory can
// have or that come twice, no variants. Paths in "data" are relative to the file's directory; here they are usable as
// they stand.
Study read_study(const std::string& path);

// The grid of `vary`, each "key=a,b,...": all combinations, the last key changing fastest; variants are named "key=a
// key2=b". Throws Error.
Study grid_study(const nlohmann::json& base, const std::vector<std::string>& vary);

// One run of a study.
struct RunSpec {
  size_t variant = 0;
  int64_t seed = 1;
  nlohmann::json settings;  // all that were given: base, study, variant, overrides, seed
  train::RunConfig config;
  std::string directory;
};
// All runs, seed by seed, in the order of the variants. overrides: "key=value" over everything. Throws Error for
// settings that train would refuse, naming the variant.
std::vector<RunSpec> runs_of(const Study& study, const std::string& out, const std::vector<std::string>& overrides);

nlohmann::json to_json(const Study& study);  // as a study file says it, without the data's place

}  // namespace birkhoff::lab
