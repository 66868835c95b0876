#include "core/cpu.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <vector>

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

struct Extension {
  Isa level;
  const char* name;
  bool here;
};

// As cmake/isa.cmake compiles them: every extension that a level's flags name is asked for.
std::vector<Extension> find_extensions() {
  __builtin_cpu_init();
  const unsigned amx = CpuidLeaf(7).d;
  std::vector<Extension> all = {{Isa::avx2, "AVX2", __builtin_cpu_supports("avx2") != 0},
                                {Isa::avx2, "FMA", __builtin_cpu_supports("fma") != 0},
                                {Isa::avx2, "F16C", (CpuidLeaf(1).c >> 29 & 1) != 0},
                                {Isa::avx512, "AVX512F", __builtin_cpu_supports("avx512f") != 0},
                                {Isa::avx512, "AVX512BW", __builtin_cpu_supports("avx512bw") != 0},
                                {Isa::avx512, "AVX512DQ", __builtin_cpu_supports("avx512dq") != 0},
                                {Isa::avx512, "AVX512VL", __builtin_cpu_supports("avx512vl") != 0},
                                {Isa::avx512, "AVX512_BF16", __builtin_cpu_supports("avx512bf16") != 0},
                                {Isa::avx512, "AVX512_VNNI", __builtin_cpu_supports("avx512vnni") != 0},
                                {Isa::amx, "AMX_BF16", (amx >> 22 & 1) != 0},
                                {Isa::amx, "AMX_TILE", (amx >> 24 & 1) != 0},
                                {Isa::amx, "AMX_INT8", (amx >> 25 & 1) != 0}};
  if (std::all_of(all.begin(), all.end(), [](const Extension& e) { return e.here; }))
    all.push_back({Isa::amx, "leave to use tiles (Linux 5.16)", request_amx()});
  return all;
}
const std::vector<Extension>& extensions() {
  static const std::vector<Extension> all = find_extensions();
  return all;
}

Isa detect() {
  for (const Isa level : {Isa::avx2, Isa::avx512, Isa::amx})
    if (!missing_for(level).empty()) return static_cast<Isa>(static_cast<int>(level) - 1);
  return Isa::amx;
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

std::string missing_for(Isa level) {
  std::string names;
  for (const Extension& e : extensions())
    if (e.level <= level && !e.here) names += (names.empty() ? "" : ", ") + std::string(e.name);
  return names;
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
