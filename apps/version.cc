// In a source of its own, which a new commit compiles again.
#include "apps/help.h"
#include "birkhoff_version.h"
#include "core/cpu.h"

namespace birkhoff::apps {

std::string version_text() {
  const std::string commit = BIRKHOFF_COMMIT;
#if defined(__clang__)
  const std::string compiler = "Clang " __clang_version__;
#else
  const std::string compiler = "GCC " __VERSION__;
#endif
  return "birkhoff " BIRKHOFF_VERSION + (commit.empty() ? "" : " (commit " + commit + ")") + "\ncompiler  " + compiler +
         ", " BIRKHOFF_BUILD_TYPE "\nkernels   up to " + isa_name(compiled_isa()) + "; this machine has " +
         isa_name(detected_isa());
}

}  // namespace birkhoff::apps
