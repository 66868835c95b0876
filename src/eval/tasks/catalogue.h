// All tasks by name: those of the files in tasks/, which are compiled in, and those of a user's files.
#pragma once
#include <string>
#include <vector>

#include "eval/tasks/task.h"
#include "text/jinja/value.h"

namespace birkhoff::eval {

// A task as its file defines it, with an entry of "each" put in; nothing but its name is read yet.
struct CatalogueTask {
  std::string name, protocol, file;
  text::chat::Value fields;     // the object of the file, without "each" and "groups"
  text::chat::Value variables;  // a dict: what templates may call by name beside a document's fields
};

struct CatalogueGroup {
  std::string name, version, protocol;
  std::vector<std::string> members;  // tasks and groups
};

class Catalogue {
 public:
  static const Catalogue& built_in();  // of the built-in files, read once
  // What a user's file defines, behind all others. Throws Error: not JSON, an unknown field, a name that is taken.
  // Returns the names to be opened: its groups that no other has, else its tasks.
  std::vector<std::string> add_file(const std::string& path);

  const std::vector<CatalogueTask>& tasks() const { return tasks_; }
  const std::vector<CatalogueGroup>& groups() const { return groups_; }
  // The task or group that a user means by a name, of a protocol: itself, or with the protocol's suffix. Throws Error
  // with the nearest name.
  std::string resolved(const std::string& name, const std::string& protocol) const;
  const CatalogueTask* task(const std::string& name) const;
  const CatalogueGroup* group(const std::string& name) const;
  // Names of tasks below a task or group, each once.
  std::vector<std::string> leaves(const std::string& name) const;
  std::vector<std::string> all(const std::string& protocol) const;  // tasks and groups of a protocol

 private:
  std::vector<std::string> add(const text::chat::Value& file, const std::string& where);
  std::vector<CatalogueTask> tasks_;
  std::vector<CatalogueGroup> groups_;
};

// What names of tasks of a protocol end in: "" or "_paper".
std::string protocol_suffix(const std::string& protocol);

}  // namespace birkhoff::eval
