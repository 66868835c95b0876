#include "eval/sandbox/interpreter.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <sstream>

#include "core/error.h"
#include "io/user_files.h"

namespace birkhoff::eval {
namespace {

// Its library and what it has loaded; the shared libraries of the system, which other modules load.
constexpr const char* kQuestion = R"py(
import os, sys
assert sys.version_info >= (3, 6)
print('executable', os.path.realpath(sys.executable))
folders = [os.path.join(p, 'lib') for p in (sys.base_prefix, sys.base_exec_prefix)] + sys.path
for p in folders + ['/lib', '/lib64', '/usr/lib', '/usr/lib64']:
    if os.path.isdir(p):
        print('folder', os.path.realpath(p))
loaded = {line.split(None, 5)[5].strip() for line in open('/proc/self/maps') if ' /' in line}
for p in [p for p in sys.path if os.path.isfile(p)] + sorted(loaded) + ['/etc/ld.so.cache']:
    if os.path.isfile(p):
        print('file', os.path.realpath(p))
for p in ('/lib', '/lib32', '/lib64'):
    if os.path.islink(p):
        print('link', p, os.readlink(p))
)py";

struct Answer {
  std::string text;
  int status = 0;
};

std::string read_to_end(int fd) {
  std::string text;
  char block[4096];
  for (ssize_t n; (n = read(fd, block, sizeof block)) != 0;) {
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) break;
    text.append(block, static_cast<size_t>(n));
  }
  return text;
}

Answer ask(const std::string& name) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw Error("sandbox", "no pipe to " + name);
  io::Descriptor out(ends[0]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
  std::string words[] = {name, "-I", "-S", "-c", kQuestion};
  char* const arguments[] = {words[0].data(), words[1].data(), words[2].data(),
                             words[3].data(), words[4].data(), nullptr};
  pid_t child = 0;
  const int error = posix_spawnp(&child, name.c_str(), &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  if (error != 0)
    throw Error("sandbox", "the interpreter " + name + " does not start: " + std::generic_category().message(error),
                "install Python 3 (Debian: apt-get install python3), or name another");
  Answer a{read_to_end(out.get()), 0};
  while (waitpid(child, &a.status, 0) < 0 && errno == EINTR) {
  }
  return a;
}

bool inside(const std::string& path, const std::string& folder) {
  return path == folder || path.starts_with(folder + "/");
}

bool inside_one(const std::string& path, const std::vector<std::string>& folders) {
  return std::any_of(folders.begin(), folders.end(), [&](const std::string& f) { return inside(path, f); });
}

}  // namespace

Interpreter find_interpreter(const std::string& name) {
  const Answer a = ask(name);
  Interpreter it;
  std::vector<std::string> folders, files;
  std::istringstream in(a.text);
  for (std::string line; std::getline(in, line);) {
    const size_t space = std::min(line.find(' '), line.size());
    const std::string kind = line.substr(0, space), value = line.substr(std::min(space + 1, line.size()));
    if (kind == "executable") it.executable = value;
    if (kind == "folder") folders.push_back(value);
    if (kind == "file") files.push_back(value);
    if (kind == "link") it.links.emplace_back(value.substr(0, value.find(' ')), value.substr(value.find(' ') + 1));
  }
  if (it.executable.empty() || a.status != 0)
    throw Error("sandbox", name + " is no Python 3 that answers (exit status " + std::to_string(a.status) + ")",
                "name another interpreter");
  std::sort(folders.begin(), folders.end());  // a folder stands before those inside it
  for (const std::string& f : folders)
    if (!inside_one(f, it.folders)) it.folders.push_back(f);
  files.push_back(it.executable);
  std::sort(files.begin(), files.end());
  files.erase(std::unique(files.begin(), files.end()), files.end());
  for (const std::string& f : files)
    if (!inside_one(f, it.folders)) it.files.push_back(f);
  return it;
}

}  // namespace birkhoff::eval
