#include "eval/sandbox/confinement.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "eval/sandbox/system_calls.h"

namespace birkhoff::eval {
namespace {

constexpr uid_t kNobody = 65534;
constexpr const char* kOld = "/old";
constexpr const char* kFolder = "/tmp";  // of a namespace

// Landlock in versions that the headers of this system may not know.
struct LandlockRules {
  uint64_t files = 0, network = 0, scopes = 0;
};
constexpr uint64_t kTruncate = 1 << 14, kDeviceControl = 1 << 15, kTcp = 3, kAbstractSocketsAndSignals = 3;
constexpr uint64_t kReadFile = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_EXECUTE,
                   kReadFolder = kReadFile | LANDLOCK_ACCESS_FS_READ_DIR;
constexpr uint64_t kFirstRights = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1;

uint64_t known_rights(int version) {
  return kFirstRights | (version >= 2 ? LANDLOCK_ACCESS_FS_REFER : 0) | (version >= 3 ? kTruncate : 0) |
         (version >= 5 ? kDeviceControl : 0);
}

// Folders on the way to `path`, the outermost first, without "/".
std::vector<std::string> ancestors(const std::string& path) {
  std::vector<std::string> all;
  for (size_t at = path.find('/', 1); at != std::string::npos; at = path.find('/', at + 1))
    all.push_back(path.substr(0, at));
  return all;
}

RootPlan plan_root(const Interpreter& it) {
  RootPlan plan;
  std::set<std::string> made = {kFolder};
  const auto make = [&](const std::string& folder) {
    if (made.insert(folder).second) plan.folders.push_back(folder);
  };
  const auto bind = [&](const std::string& path, bool folder, bool read_only) {
    for (const std::string& above : ancestors(path)) make(above);
    if (folder)
      make(path);
    else
      plan.files.push_back(path);
    plan.binds.push_back({kOld + path, path, read_only});
  };
  for (const std::string& f : it.folders) bind(f, true, true);
  for (const std::string& f : it.files) bind(f, false, true);
  bind("/dev/null", false, false);
  for (const auto& link : it.links)
    if (made.count(link.first) == 0) plan.links.push_back(link);
  return plan;
}

}  // namespace

int landlock_version() {
  const long version = syscall(SYS_landlock_create_ruleset, nullptr, 0, LANDLOCK_CREATE_RULESET_VERSION);
  return version < 0 ? 0 : static_cast<int>(version);
}

Confinement::Confinement(const Interpreter& i, const SandboxLimits& l, const Means& m)
    : interpreter(i), limits(l), means(m), root(plan_root(i)), filter(system_call_filter()) {
  // In memory, of which this is the bound: four files of the largest size.
  folder_options = "mode=0777,nr_inodes=4096,size=" + std::to_string(4 * limits.file_bytes);
}

std::vector<std::string> described(const Means& means) {
  std::vector<std::string> said;
  if (means.user_namespace) said.emplace_back("user namespace");
  if (means.namespaces) said.emplace_back("mount, network, process and IPC namespaces");
  if (means.landlock) said.push_back("Landlock " + std::to_string(means.landlock));
  if (means.other_user) said.emplace_back("user nobody");
  for (const char* always : {"no_new_privs", "seccomp", "resource limits"}) said.emplace_back(always);
  return said;
}

uint64_t clone_flags(const Means& means) {
  return (means.namespaces ? CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC : 0) |
         (means.user_namespace ? CLONE_NEWUSER : 0);
}

std::pair<std::string, std::string> id_maps(const Means& means) {
  const std::string nobody = std::to_string(kNobody), both = "0 0 1\n" + nobody + " " + nobody + " 1\n";
  if (means.other_user) return {both, both};
  return {nobody + " " + std::to_string(geteuid()) + " 1\n", nobody + " " + std::to_string(getegid()) + " 1\n"};
}

namespace {

// Each step says true, or leaves why not.
class Entry {
 public:
  explicit Entry(const Confinement& c) : c_(c) {}
  ConfinementFailure run(const char* folder);

 private:
  bool enter_root(const char* folder);
  bool make_root();
  bool limit_resources();
  bool restrict_files(const char* folder);
  bool allow_path(int rules, const char* path, uint64_t rights);
  bool give_up_rights();
  bool filter_calls();
  bool ok(const char* step, long result);

  const Confinement& c_;
  ConfinementFailure failure_;
};

bool Entry::ok(const char* step, long result) {
  if (result >= 0) return true;
  failure_ = {step, errno};
  return false;
}

// The interpreter's folders and nothing else, under their own names; the old root goes.
bool Entry::make_root() {
  const auto protect = [](const char* path, uint64_t attributes, unsigned flags) {
    mount_attr a{};
    a.attr_set = attributes;
    return syscall(SYS_mount_setattr, -1, path, flags, &a, sizeof a);
  };
  // The folder first: an interpreter may lie below it.
  bool good =
      ok("pivot_root", syscall(SYS_pivot_root, ".", "old")) && ok("chdir to the new root", chdir("/")) &&
      ok("mkdir of the folder", mkdir(kFolder, 0755)) &&
      ok("mount of the folder", mount("tmpfs", kFolder, "tmpfs", MS_NOSUID | MS_NODEV, c_.folder_options.c_str()));
  for (const std::string& f : c_.root.folders) good = good && ok("mkdir in the new root", mkdir(f.c_str(), 0755));
  for (const std::string& f : c_.root.files)
    good = good && ok("mknod in the new root", mknod(f.c_str(), S_IFREG | 0644, 0));
  for (const RootPlan::Bind& b : c_.root.binds) {
    good = good && ok("mount --bind of the interpreter's folders",
                      mount(b.source.c_str(), b.target.c_str(), nullptr, MS_BIND | MS_REC, nullptr));
    if (b.read_only)
      good =
          good && ok("mount_setattr (Linux 5.12)",
                     protect(b.target.c_str(), MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, AT_RECURSIVE));
  }
  for (const auto& link : c_.root.links)
    good = good && ok("symlink in the new root", symlink(link.second.c_str(), link.first.c_str()));
  return good && ok("umount of the old root", umount2(kOld, MNT_DETACH)) && ok("rmdir /old", rmdir(kOld)) &&
         ok("mount_setattr (Linux 5.12)", protect("/", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, 0));
}

bool Entry::enter_root(const char* folder) {
  if (!c_.means.namespaces) return ok("chdir to the folder", chdir(folder));
  umask(0022);
  return ok("mount --make-rprivate", mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr)) &&
         ok("mount of a new root", mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m")) &&
         ok("chdir to the new root", chdir("/tmp")) && ok("mkdir in the new root", mkdir("old", 0700)) && make_root() &&
         ok("chdir to the folder", chdir(kFolder));
}

bool Entry::limit_resources() {
  const auto limit = [&](int what, double most) {
    rlimit now{};
    if (getrlimit(static_cast<__rlimit_resource>(what), &now) != 0) return -1;
    now.rlim_cur = now.rlim_max = std::min(now.rlim_max, static_cast<rlim_t>(most));
    return setrlimit(static_cast<__rlimit_resource>(what), &now);
  };
  // Threads are counted by user: only in a namespace of its own are they the program's alone.
  return (!c_.means.user_namespace || ok("setrlimit of processes", limit(RLIMIT_NPROC, 64))) &&
         ok("setrlimit of processor time", limit(RLIMIT_CPU, std::ceil(c_.limits.cpu_seconds))) &&
         ok("setrlimit of memory", limit(RLIMIT_AS, static_cast<double>(c_.limits.memory_bytes))) &&
         ok("setrlimit of files", limit(RLIMIT_FSIZE, static_cast<double>(c_.limits.file_bytes))) &&
         ok("setrlimit of descriptors", limit(RLIMIT_NOFILE, 64)) && ok("setrlimit of dumps", limit(RLIMIT_CORE, 0)) &&
         ok("setrlimit of the stack", limit(RLIMIT_STACK, 8 << 20));
}

bool Entry::allow_path(int rules, const char* path, uint64_t rights) {
  const int fd = open(path, O_PATH | O_CLOEXEC);
  if (!ok("open of the interpreter's folders", fd)) return false;
  landlock_path_beneath_attr rule{};
  rule.allowed_access = rights & known_rights(c_.means.landlock);
  rule.parent_fd = fd;
  const long result = syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
  close(fd);
  return ok("landlock_add_rule", result);
}

bool Entry::restrict_files(const char* folder) {
  if (c_.means.landlock == 0) return true;
  LandlockRules r{known_rights(c_.means.landlock), kTcp, kAbstractSocketsAndSignals};
  const size_t size = c_.means.landlock >= 6 ? sizeof r : c_.means.landlock >= 4 ? 16 : 8;
  const int rules = static_cast<int>(syscall(SYS_landlock_create_ruleset, &r, size, 0));
  bool good = ok("landlock_create_ruleset", rules);
  for (const std::string& f : c_.interpreter.folders) good = good && allow_path(rules, f.c_str(), kReadFolder);
  for (const std::string& f : c_.interpreter.files) good = good && allow_path(rules, f.c_str(), kReadFile);
  constexpr uint64_t written = LANDLOCK_ACCESS_FS_WRITE_FILE | kTruncate,
                     made = LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |
                            LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SYM |
                            LANDLOCK_ACCESS_FS_REFER,
                     read = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
  return good && allow_path(rules, "/dev/null", LANDLOCK_ACCESS_FS_READ_FILE | written) &&
         allow_path(rules, folder, read | written | made) &&
         ok("landlock_restrict_self", syscall(SYS_landlock_restrict_self, rules, 0));
}

bool Entry::give_up_rights() {
  if (c_.means.other_user && !(ok("setgroups", syscall(SYS_setgroups, 0, nullptr)) &&
                               ok("setresgid", syscall(SYS_setresgid, kNobody, kNobody, kNobody)) &&
                               ok("setresuid", syscall(SYS_setresuid, kNobody, kNobody, kNobody))))
    return false;
  // With no_new_privs an exec gives nothing back, also to root.
  __user_cap_header_struct head{_LINUX_CAPABILITY_VERSION_3, 0};
  const __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
  return ok("capset", syscall(SYS_capset, &head, none)) && ok("prctl", prctl(PR_SET_PDEATHSIG, SIGKILL));
}

bool Entry::filter_calls() {
  const sock_fprog program{static_cast<unsigned short>(c_.filter.size()), const_cast<sock_filter*>(c_.filter.data())};
  return ok("seccomp", prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

ConfinementFailure Entry::run(const char* folder) {
  // Descriptors are limited after the last is opened: the parent may have many.
  (void)(enter_root(folder) && ok("no_new_privs", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) &&
         restrict_files(c_.means.namespaces ? kFolder : folder) && limit_resources() && give_up_rights() &&
         filter_calls());
  return failure_;
}

}  // namespace

ConfinementFailure enter(const Confinement& confinement, const char* folder) { return Entry(confinement).run(folder); }

}  // namespace birkhoff::eval
