// What a reader of a model should know that is no error. Libraries do not print: programs do, once, on standard error.
#pragma once
#include <string>
#include <vector>

#include "model/config/config.h"

namespace birkhoff::model {

// Keys of config.json that change what other programs compute and that nothing here honours, one line each with the
// value; empty for every released model of the family.
std::vector<std::string> reading_notes(const ModelConfig& c);
// Who will not open what this model is written as.
std::vector<std::string> writing_notes(const ModelConfig& c);

}  // namespace birkhoff::model
