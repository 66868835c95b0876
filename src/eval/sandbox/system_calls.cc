#include "eval/sandbox/system_calls.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace birkhoff::eval {
namespace {

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
constexpr uint32_t kArchitecture = 0;  // no process has it: none passes the filter, and a Sandbox says so
#endif

constexpr int kFiles[] = {
    SYS_read,      SYS_write,           SYS_close,     SYS_fstat,      SYS_lseek,     SYS_pread64,    SYS_pwrite64,
    SYS_readv,     SYS_writev,          SYS_preadv,    SYS_pwritev,    SYS_dup,       SYS_dup3,       SYS_pipe2,
    SYS_fsync,     SYS_fdatasync,       SYS_ftruncate, SYS_fallocate,  SYS_fadvise64, SYS_getdents64, SYS_getcwd,
    SYS_chdir,     SYS_fchdir,          SYS_mkdirat,   SYS_unlinkat,   SYS_renameat,  SYS_renameat2,  SYS_linkat,
    SYS_symlinkat, SYS_readlinkat,      SYS_faccessat, SYS_newfstatat, SYS_statfs,    SYS_fstatfs,    SYS_umask,
    SYS_sendfile,  SYS_copy_file_range, SYS_statx};
constexpr int kWaiting[] = {SYS_ppoll,    SYS_pselect6,    SYS_epoll_create1, SYS_epoll_ctl,  SYS_epoll_pwait,
                            SYS_eventfd2, SYS_sendto,      SYS_recvfrom,      SYS_sendmsg,    SYS_recvmsg,
                            SYS_shutdown, SYS_getsockname, SYS_getpeername,   SYS_getsockopt, SYS_setsockopt};
constexpr int kMemory[] = {SYS_mmap,   SYS_mprotect, SYS_munmap,  SYS_brk,
                           SYS_mremap, SYS_msync,    SYS_mincore, SYS_madvise};
constexpr int kProcess[] = {
    SYS_execve,  SYS_exit,       SYS_exit_group, SYS_wait4,           SYS_waitid,          SYS_getpid,
    SYS_getppid, SYS_gettid,     SYS_getpgid,    SYS_getsid,          SYS_getuid,          SYS_geteuid,
    SYS_getgid,  SYS_getegid,    SYS_getresuid,  SYS_getresgid,       SYS_getgroups,       SYS_getrusage,
    SYS_times,   SYS_uname,      SYS_sysinfo,    SYS_set_tid_address, SYS_set_robust_list, SYS_get_robust_list,
    SYS_futex,   SYS_membarrier, SYS_rseq};
constexpr int kSignals[] = {SYS_restart_syscall, SYS_rt_sigaction,    SYS_rt_sigprocmask, SYS_rt_sigreturn,
                            SYS_rt_sigpending,   SYS_rt_sigtimedwait, SYS_rt_sigsuspend,  SYS_sigaltstack};
constexpr int kScheduling[] = {SYS_getpriority,
                               SYS_sched_yield,
                               SYS_sched_getaffinity,
                               SYS_sched_getparam,
                               SYS_sched_getscheduler,
                               SYS_sched_get_priority_max,
                               SYS_sched_get_priority_min,
                               SYS_getcpu};
constexpr int kClocks[] = {SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep, SYS_nanosleep,
                           SYS_gettimeofday,  SYS_getitimer,    SYS_setitimer,       SYS_getrandom};
#if defined(__x86_64__)
constexpr int kOlderNames[] = {SYS_stat,         SYS_lstat,      SYS_access,   SYS_pipe,       SYS_dup2,
                               SYS_getdents,     SYS_rename,     SYS_mkdir,    SYS_rmdir,      SYS_link,
                               SYS_unlink,       SYS_symlink,    SYS_readlink, SYS_poll,       SYS_select,
                               SYS_epoll_create, SYS_epoll_wait, SYS_eventfd,  SYS_creat,      SYS_pause,
                               SYS_alarm,        SYS_time,       SYS_getpgrp,  SYS_arch_prctl, SYS_getrlimit};
#else
constexpr std::array<int, 0> kOlderNames;
#endif

// Argument `index`, its low 32 bits under `mask`, is one of the values.
struct Condition {
  uint32_t index, mask;
  std::vector<uint32_t> values;
};

class FilterWriter {
 public:
  FilterWriter() {
    load(offsetof(seccomp_data, arch));
    jump_if_equal(kArchitecture, 1, 0);
    end(SECCOMP_RET_KILL_PROCESS);
    load(offsetof(seccomp_data, nr));
  }
  void allow(int call) {
    jump_if_equal(static_cast<uint32_t>(call), 0, 1);
    end(SECCOMP_RET_ALLOW);
  }
  // Where all conditions hold; refused otherwise. The accumulator still holds the number of the call after it.
  void allow_where(int call, const std::vector<Condition>& conditions) {
    size_t length = 1;
    for (const Condition& c : conditions) length += 3 + c.values.size();
    jump_if_equal(static_cast<uint32_t>(call), 0, length);
    for (const Condition& c : conditions) {
      load(static_cast<uint32_t>(offsetof(seccomp_data, args) + 8 * c.index));
      code_.push_back(BPF_STMT(BPF_ALU | BPF_AND | BPF_K, c.mask));
      for (size_t v = 0; v < c.values.size(); ++v) jump_if_equal(c.values[v], c.values.size() - v, 0);
      end(SECCOMP_RET_ERRNO | EPERM);
    }
    end(SECCOMP_RET_ALLOW);
  }
  std::vector<sock_filter> finish() {
    end(SECCOMP_RET_ERRNO | ENOSYS);
    return std::move(code_);
  }

 private:
  void load(uint32_t at) { code_.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at)); }
  void jump_if_equal(uint32_t k, size_t then, size_t otherwise) {
    code_.push_back(
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k, static_cast<uint8_t>(then), static_cast<uint8_t>(otherwise)));
  }
  void end(uint32_t verdict) { code_.push_back(BPF_STMT(BPF_RET | BPF_K, verdict)); }
  std::vector<sock_filter> code_;
};

}  // namespace

std::vector<sock_filter> system_call_filter() {
  constexpr uint32_t all = ~0u, new_namespaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
                                                 CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;
  FilterWriter w;
  using Calls = std::span<const int>;
  for (const Calls calls : {Calls(kFiles), Calls(kWaiting), Calls(kMemory), Calls(kProcess), Calls(kSignals),
                            Calls(kScheduling), Calls(kClocks), Calls(kOlderNames)})
    for (const int call : calls) w.allow(call);
  w.allow_where(SYS_clone, {{0, CLONE_THREAD | new_namespaces, {CLONE_THREAD}}});
  w.allow_where(SYS_socketpair, {{0, all, {AF_UNIX}}, {1, 0xf, {SOCK_STREAM}}});
  // Reading with O_TRUNC truncates, which Landlock sees from its third version on.
  const std::vector<uint32_t> modes = {O_RDONLY, O_WRONLY, O_RDWR, O_WRONLY | O_TRUNC, O_RDWR | O_TRUNC};
  w.allow_where(SYS_openat, {{2, O_ACCMODE | O_TRUNC, modes}});
#if defined(__x86_64__)
  w.allow_where(SYS_open, {{1, O_ACCMODE | O_TRUNC, modes}});
#endif
  // No owner of a descriptor: it gets signals, and could be another process.
  w.allow_where(SYS_fcntl, {{1,
                             all,
                             {F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_SETLK, F_SETLKW,
                              F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW, F_GETPIPE_SZ}}});
  w.allow_where(SYS_ioctl, {{1, all, {FIONBIO, FIONREAD, FIOCLEX, FIONCLEX, TCGETS, TIOCGWINSZ}}});
  w.allow_where(SYS_prctl, {{0, all, {PR_SET_NAME, PR_GET_NAME}}});
  w.allow_where(SYS_prlimit64, {{0, all, {0}}});
  return w.finish();
}

}  // namespace birkhoff::eval
