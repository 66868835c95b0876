// How a child gives up what it can do: prepared before the fork, carried out after it.
#pragma once
#include <linux/filter.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "eval/sandbox/interpreter.h"
#include "eval/sandbox/sandbox.h"

namespace birkhoff::eval {

// Of the kernel: the version of Landlock, 0 where there is none.
int landlock_version();

// What is used of what the kernel may have; limits and the filter of system calls always are.
struct Means {
  bool namespaces = false, user_namespace = false;  // the second only with the first
  bool other_user = false;                          // of root: becomes nobody
  int landlock = 0;                                 // version
};

// Changes to the root of a mount namespace, in order; all paths are absolute, sources below the old root.
struct RootPlan {
  struct Bind {
    std::string source, target;
    bool read_only = true;
  };
  std::vector<std::string> folders, files;  // made before
  std::vector<Bind> binds;
  std::vector<std::pair<std::string, std::string>> links;  // place and what it says
};

struct Confinement {
  Confinement(const Interpreter& interpreter, const SandboxLimits& limits, const Means& means);
  Interpreter interpreter;
  SandboxLimits limits;
  Means means;
  RootPlan root;
  std::vector<sock_filter> filter;
  std::string folder_options;  // of the file system that a namespace's folder is
};
std::vector<std::string> described(const Means& means);
uint64_t clone_flags(const Means& means);
// What a parent writes into /proc/CHILD/uid_map and gid_map; setgroups is denied where nobody stands for this user.
std::pair<std::string, std::string> id_maps(const Means& means);

struct ConfinementFailure {
  const char* step = nullptr;  // a literal, which the parent has at the same address; null when there was none
  int error = 0;
};
// In the child alone, between fork and exec: no allocation, no locks. Afterwards the working directory is the folder it
// may write to: `folder`, or one of its own in a namespace.
ConfinementFailure enter(const Confinement& confinement, const char* folder);

}  // namespace birkhoff::eval
