// A temporary folder that strangers write to.
#pragma once
#include <string>

namespace birkhoff::eval {

class WorkFolder {
 public:
  // Below /tmp; of nobody, when that is who will write to it. Throws Error.
  explicit WorkFolder(bool of_nobody);
  // Removes it with all that is in it, however deep and whatever its rights.
  ~WorkFolder();
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace birkhoff::eval
