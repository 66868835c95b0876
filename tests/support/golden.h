// Reference data as tests read it: tensors of a safetensors file as doubles, JSON that Python wrote.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "io/safetensors.h"

namespace birkhoff::test {

// tests/golden of this tree.
std::string committed_dir();
// Root of the reference data: committed_dir(), or the full sets when BIRKHOFF_ORACLE names a directory.
std::string golden_dir();
// A file below golden_dir(), e.g. "vectors/mhc_vectors.safetensors"; opened once.
const io::SafetensorsFile& golden_file(const std::string& relative);
bool has_golden(const std::string& relative);
// A JSON file as Python writes it: Infinity, -Infinity and NaN, which JSON does not have, are null.
nlohmann::json python_json(const std::string& path);
// Tensor values as double (F64, F32, BF16, I64, I32). Fails the program when the tensor is absent.
std::vector<double> golden(const io::SafetensorsFile& f, const std::string& name);
std::vector<int64_t> golden_shape(const io::SafetensorsFile& f, const std::string& name);

}  // namespace birkhoff::test
