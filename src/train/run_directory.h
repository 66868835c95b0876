// The directory of a run: config.json run.json metrics.jsonl report.html checkpoints/ latest. One process at a time.
#pragma once
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace birkhoff::io {
class DirectoryLock;
}

namespace birkhoff::train {

class RunDirectory {
 public:
  enum class Open { fresh, resume };
  // fresh: creates it; refused when anything stands under a name that a run writes to. resume: must hold a run; a
  // checkpoint is none. Both take the lock: a directory in use by another process is refused. Throws Error.
  RunDirectory(const std::string& path, Open how);
  ~RunDirectory();
  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
  std::unique_ptr<io::DirectoryLock> lock_;
};

}  // namespace birkhoff::train
