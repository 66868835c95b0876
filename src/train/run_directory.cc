#include "train/run_directory.h"

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "io/atomic_file.h"
#include "io/json_file.h"
#include "io/user_files.h"

namespace birkhoff::train {

namespace {

// What a start that was killed before config.json was there leaves: nothing that anyone has use for.
bool is_unfinished_start(const std::string& path) {
  try {
    const nlohmann::json run = io::read_json(path + "/run.json");
    return run.is_object() && run.value("status", "") == "running" && run.contains("position") &&
           run["position"].value("step", -1) == 0;
  } catch (const std::exception&) {
    return false;
  }
}

// The names of a run that stand in the directory, "a, b". An empty checkpoints directory holds nothing.
std::string names_of_a_run(const std::string& path) {
  std::string found;
  for (const std::string name : {"config.json", "run.json", "metrics.jsonl", "report.html", "latest", "checkpoints"}) {
    const std::string at = path + "/" + name;
    if (!io::is_taken(at)) continue;
    if (name == "checkpoints" && io::is_directory(at) && io::list_directory(at).empty()) continue;
    found += (found.empty() ? "" : ", ") + name;
  }
  return found == "run.json" && is_unfinished_start(path) ? "" : found;
}

void require_no_run(const std::string& path) {
  if (io::exists(path + "/config.json"))
    throw Error("run", path + ": already holds a run", "add --resume to go on with it, or choose another --out");
  if (const std::string found = names_of_a_run(path); !found.empty())
    throw Error("run", path + ": already holds " + found + ", names that a run writes to",
                "choose another --out, or move them away");
}

void require_run(const std::string& path) {
  if (io::exists(path + "/trainer_state") && !io::exists(path + "/run.json"))
    throw Error("run", path + ": is a checkpoint, not a run",
                "give the run's directory, which holds run.json and checkpoints; --init starts a new run from a "
                "checkpoint");
  if (!io::exists(path + "/config.json"))
    throw Error("run", path + ": holds no run to resume", "leave out --resume to start one");
  if (!io::exists(path + "/run.json"))
    throw Error("run", path + ": holds a model but no run.json, so no run to resume",
                "--init starts a new run from it");
}

}  // namespace

RunDirectory::RunDirectory(const std::string& path, Open how) : path_(path) {
  if (path.empty()) throw Error("run", "no run directory", "give --out DIR", ExitCode::usage);
  if (io::exists(path) && !io::is_directory(path))
    throw Error("run", path + ": exists and is not a directory", "choose another --out");
  if (how == Open::fresh)
    require_no_run(path);
  else
    require_run(path);
  io::create_directories(path + "/checkpoints");
  lock_ = std::make_unique<io::DirectoryLock>(path);
  if (how == Open::fresh) require_no_run(path);  // another may have begun, and ended, before the lock
}

RunDirectory::~RunDirectory() = default;

}  // namespace birkhoff::train
