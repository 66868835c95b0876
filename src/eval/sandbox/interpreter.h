// What an interpreter reads when it starts and imports: found out by asking it.
#pragma once
#include <string>
#include <utility>
#include <vector>

namespace birkhoff::eval {

struct Interpreter {
  std::string executable;                                  // real path
  std::vector<std::string> folders, files;                 // real paths, none inside another; files beside `executable`
  std::vector<std::pair<std::string, std::string>> links;  // such as /lib and what it says, usr/lib
};

// name: a path, or looked for as the shell does. Throws Error: no such program, or it is no Python 3.
Interpreter find_interpreter(const std::string& name);

}  // namespace birkhoff::eval
