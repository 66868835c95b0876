#include "eval/sandbox/sandbox.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>

#include "core/error.h"
#include "eval/sandbox/child.h"

namespace birkhoff::eval {
namespace {

// Ways to hold files, the strongest first.
std::vector<Means> possible_means(const SandboxMeans& allowed) {
  const int landlock = allowed.landlock ? landlock_version() : 0;
  std::vector<Means> all;
  for (const bool user_namespace : {true, false})
    for (const bool other_user : {true, false}) {
      if (!allowed.namespaces || (user_namespace && !allowed.user_namespaces)) continue;
      if (geteuid() != 0 && (!user_namespace || other_user)) continue;
      all.push_back({true, user_namespace, other_user, landlock});
    }
  for (const bool other_user : {true, false})
    if (landlock > 0 && (geteuid() == 0 || !other_user)) all.push_back({false, false, other_user, landlock});
  return all;
}

// "" when a program runs to its end with these means, else what went wrong.
std::string complaint(const Confinement& c) {
  try {
    const ProgramResult r = run_confined(c, "import math, random, re");
    if (r.end == ProgramEnd::passed) return "";
    return std::string("the interpreter ends as ") + program_end_name(r.end) + " " + r.output;
  } catch (const Error& e) {
    return e.said();
  }
}

}  // namespace

const char* program_end_name(ProgramEnd e) {
  constexpr const char* names[] = {"passed", "failed", "timeout", "killed"};
  return names[static_cast<int>(e)];
}

Sandbox::Sandbox(const std::string& interpreter, const SandboxLimits& limits, const SandboxMeans& means) {
  const Interpreter found = find_interpreter(interpreter);
  std::string complaints;
  for (const Means& m : possible_means(means)) {
    const auto c = std::make_shared<const Confinement>(found, limits, m);
    const std::string what = complaint(*c);
    if (what.empty()) {
      confinement_ = c;
      protections_ = described(m);
      return;
    }
    complaints += std::string(m.namespaces ? "namespaces" : "Landlock") + " (" + what + "), ";
  }
  if (!means.landlock || landlock_version() == 0) complaints += "Landlock (the kernel does not give it), ";
  throw Error("sandbox", "programs cannot be held here: " + complaints.substr(0, complaints.size() - 2),
              "one of the two is needed: user namespaces that this user may make (sysctl user.max_user_namespaces, "
              "kernel.unprivileged_userns_clone) or Landlock (Linux 5.13, lsm=landlock); containers need a seccomp "
              "profile that lets them through");
}

ProgramResult Sandbox::run(const std::string& program) const { return run_confined(*confinement_, program); }

std::vector<ProgramResult> Sandbox::run_all(const std::vector<std::string>& programs, int at_once) const {
  std::vector<ProgramResult> results(programs.size());
  std::atomic<size_t> next = 0;
  std::exception_ptr failure;
  std::mutex failing;
  const auto work = [&] {
    try {
      for (size_t i; (i = next++) < programs.size();) results[i] = run(programs[i]);
    } catch (...) {
      const std::lock_guard lock(failing);
      failure = std::current_exception();
      next = programs.size();
    }
  };
  std::vector<std::thread> workers;
  const size_t count = std::min(programs.size(), static_cast<size_t>(std::max(at_once, 1)));
  for (size_t w = 0; w < count; ++w) workers.emplace_back(work);
  for (std::thread& w : workers) w.join();
  if (failure) std::rethrow_exception(failure);
  return results;
}

}  // namespace birkhoff::eval
