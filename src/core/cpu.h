// What this machine can execute, and which instruction set the kernels use.
#pragma once
#include <string>

namespace birkhoff {

// Ladder of kernel builds; each level needs all below it.
//   scalar  plain C++, any x86-64          avx2  AVX2 + FMA + F16C
//   avx512  AVX-512 F/BW/DQ/VL + BF16      amx   avx512 + AMX tiles with bf16
enum class Isa { scalar, avx2, avx512, amx };

const char* isa_name(Isa isa);
bool parse_isa(const std::string& name, Isa& out);

Isa detected_isa();  // the best this processor and kernel offer
Isa compiled_isa();  // the widest there are kernels for (BIRKHOFF_WIDEST_ISA of the build)
Isa usable_isa();    // the widest that is detected and compiled
Isa active_isa();    // the same, capped by limit_isa()
// What the processor lacks (or Linux withholds) of a level and those below it, by the processor's names; "" of those
// detected.
std::string missing_for(Isa level);
// Caps every kernel. Call before work starts; asking for more than detected has no effect.
void limit_isa(Isa cap);

std::string cpu_model();
int cpu_cores();  // cores this process may run on

}  // namespace birkhoff
