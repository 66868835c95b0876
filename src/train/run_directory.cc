#include "train/run_directory.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "io/atomic_file.h"

namespace birkhoff::train {

namespace fs = std::filesystem;

RunDirectory::RunDirectory(const std::string& path, Open how) : path_(path) {
  if (path.empty()) throw Error("run", "no run directory", "give --out DIR", ExitCode::usage);
  std::error_code ec;
  if (fs::exists(path) && !fs::is_directory(path))
    throw Error("run", path + ": exists and is not a directory", "choose another --out");
  const bool used = fs::exists(path + "/config.json");
  if (how == Open::fresh && used)
    throw Error("run", path + ": already holds a run", "add --resume to go on with it, or choose another --out");
  if (how == Open::resume && !used)
    throw Error("run", path + ": holds no run to resume", "leave out --resume to start one");
  fs::create_directories(path + "/checkpoints", ec);
  if (ec) throw Error("run", path + ": " + ec.message(), "choose a directory that can be written");
  lock_ = std::make_unique<io::DirectoryLock>(path);
}

RunDirectory::~RunDirectory() = default;

}  // namespace birkhoff::train
