#include "core/cpu.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>

#include "core/compiled_isa.h"

namespace birkhoff {
namespace {

// Linux hands out AMX tile state per process, on request.
bool request_amx() {
  constexpr int kArchReqXcompPerm = 0x1023, kXfeatureTileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureTileData) == 0;
}

struct CpuidLeaf {
  unsigned a, b = 0, c = 0, d = 0;
  explicit CpuidLeaf(unsigned leaf) : a(leaf) { __asm__ volatile("cpuid" : "+a"(a), "+b"(b), "+c"(c), "+d"(d)); }
};
bool cpuid_has_f16c() { return CpuidLeaf(1).c >> 29 & 1; }
bool cpuid_has_amx() {
  const CpuidLeaf features(7);
  return (features.d >> 22 & 1) && (features.d >> 24 & 1) && (features.d >> 25 & 1);  // AMX-BF16, AMX-TILE, AMX-INT8
}

// As cmake/isa.cmake compiles them: every extension that a level's flags name is asked for.
Isa detect() {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && cpuid_has_f16c();
  if (!avx2) return Isa::scalar;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
  if (!avx512) return Isa::avx2;
  return cpuid_has_amx() && request_amx() ? Isa::amx : Isa::avx512;
}

std::atomic<int> cap{static_cast<int>(Isa::BK_WIDEST)};

// The widest level there are kernels for that is not above `level`.
Isa compiled_below(int level) {
  constexpr bool kCompiled[] = {BK_COMPILED_scalar, BK_COMPILED_avx2, BK_COMPILED_avx512, BK_COMPILED_amx};
  while (!kCompiled[level]) --level;
  return static_cast<Isa>(level);
}

constexpr const char* kIsaNames[] = {"scalar", "avx2", "avx512", "amx"};

}  // namespace

const char* isa_name(Isa isa) { return kIsaNames[static_cast<int>(isa)]; }

bool parse_isa(const std::string& name, Isa& out) {
  for (int i = 0; i < 4; ++i) {
    if (name == kIsaNames[i]) {
      out = static_cast<Isa>(i);
      return true;
    }
  }
  return false;
}

Isa detected_isa() {
  static const Isa isa = detect();
  return isa;
}

Isa active_isa() {
  return compiled_below(std::min(static_cast<int>(detected_isa()), cap.load(std::memory_order_relaxed)));
}

Isa usable_isa() { return compiled_below(static_cast<int>(std::min(detected_isa(), compiled_isa()))); }

Isa compiled_isa() { return Isa::BK_WIDEST; }

void limit_isa(Isa c) { cap.store(static_cast<int>(std::min(c, compiled_isa())), std::memory_order_relaxed); }

std::string cpu_model() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(std::min(line.size(), line.find(':') + 2));
  }
  return "unknown";
}

int cpu_cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

}  // namespace birkhoff
