#include "train/run_settings.h"

#include <map>
#include <nlohmann/json.hpp>

#include "checkpoint/hf_directory.h"
#include "checkpoint/weight_files.h"
#include "core/error.h"
#include "io/json_file.h"
#include "train/run_data.h"

namespace birkhoff::train {
namespace {

using nlohmann::json;

// What is trained decides what a checkpoint holds.
bool fixed_within_run(const std::string& key) { return key == "trainable" || key.rfind("lora.", 0) == 0; }

// All settings under our names, whatever the released type the run's config.json is written as.
json settings_of(RunConfig c) {
  c.model.model_type = model::kOwnType;
  c.model.unknown_keys = "{}";
  return run_config_to_json(c);
}

// "1234 bytes, xxh64 00ff"
std::string file_text(const json& f) {
  return std::to_string(f.at("bytes").get<int64_t>()) + " bytes, xxh64 " + f.at("xxh64").get<std::string>();
}

void require_same_files(const json& before, const std::vector<std::string>& data,
                        const std::vector<std::string>& validation) {
  constexpr const char* kHint = "put it back as it was, or give --data again to go on with what is there now";
  std::map<std::string, json> left;  // that are there now and were not then
  for (json& is : describe_files(data, validation)) left.emplace(is.at("file").get<std::string>(), std::move(is));
  for (const json& was : before) {
    const auto name = was.at("file").get<std::string>();
    const auto is = left.extract(name);
    if (is.empty()) throw Error("resume", name + ": was read when the run was started, is gone", kHint);
    if (is.mapped() != was)
      throw Error("resume",
                  name + ": changed since the run was started: " + file_text(was) + ", now " + file_text(is.mapped()),
                  kHint);
  }
  if (!left.empty() && !before.empty())
    throw Error("resume", left.begin()->first + ": was not there when the run was started", kHint);
}

}  // namespace

RunConfig resumed_config(const TrainOptions& o, const RunDirectory& dir, std::vector<std::string>& notes) {
  const RunConfig was = run_config_from_json(io::read_json(dir.file("config.json")));
  const json before = settings_of(was);
  json base = before;
  base.erase("training");
  base.update(before["training"]);
  base.update(o.settings_base);
  RunConfig now = make_run_config(base, o.settings_set);
  now.model.model_type = was.model.model_type;
  now.model.unknown_keys = was.model.unknown_keys;
  now.model.quantisation = was.model.quantisation;
  const json after = settings_of(now);
  for (const auto& [key, value] : after.items()) {
    if (key == "training" || !before.contains(key) || before[key] == value) continue;
    throw Error("resume", key + ": the run has " + before[key].dump() + ", asked for " + value.dump(),
                "model settings cannot change within a run; start a new one");
  }
  for (const auto& [key, value] : after["training"].items()) {
    const json& earlier = before["training"][key];
    if (earlier != value && fixed_within_run(key))
      throw Error("resume", key + ": the run has " + earlier.dump() + ", asked for " + value.dump(),
                  "it cannot change within a run; start a new one with --init " + dir.path());
    if (earlier != value)
      notes.push_back("changed setting " + key + ": " + earlier.dump() + " -> " + value.dump() +
                      (key == "steps" ? " (schedule recomputed)" : ""));
  }
  return now;
}

void take_up(const std::string& file, TrainOptions& o, std::vector<std::string>& notes) {
  const json run = io::read_json(file);
  try {
    o.init = run.value("init", "");
    if (o.data.empty()) {
      o.data = run.at("data").get<std::vector<std::string>>();
      o.validation = run.at("validation").get<std::vector<std::string>>();
      require_same_files(run.value("data_files", json::array()), o.data, o.validation);
    }
    for (const auto& [key, now] : {std::pair{"data", o.data}, {"validation", o.validation}})
      if (const json was = run.value(key, json()); was != json(now))
        notes.push_back(std::string(key) + ": " + was.dump() + " -> " + json(now).dump());
  } catch (const json::exception& e) {
    throw Error("resume", file + ": " + e.what(), "it was edited; give --data again, or mend it");
  }
}

RunConfig further_config(const TrainOptions& o, const std::string& directory, std::vector<std::string>& notes) {
  model::ModelConfig from = model_of_directory(checkpoint::read_config_json(directory));
  const std::string note = checkpoint::drop_absent_predictors(checkpoint::WeightFiles(directory), from);
  if (!note.empty()) notes.push_back(note);
  return make_run_config(o.settings_base, o.settings_set, &from);
}

}  // namespace birkhoff::train
