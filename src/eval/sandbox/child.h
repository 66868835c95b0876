// One confined child from its fork to its end.
#pragma once
#include <string>

#include "eval/sandbox/confinement.h"

namespace birkhoff::eval {

// Runs the program in a folder of its own, which is gone afterwards, as is everything the program began. Throws Error
// naming the step that the kernel refused.
ProgramResult run_confined(const Confinement& confinement, const std::string& program);

}  // namespace birkhoff::eval
