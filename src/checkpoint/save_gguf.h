// Writing a model as one GGUF file, a piece of a tensor at a time.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "checkpoint/save_model.h"
#include "core/exec.h"
#include "io/gguf_writer.h"
#include "ops/gemm/stored_matrix.h"

namespace birkhoff::checkpoint {

// What matrices are; norms, biases and routers are fp32. A matrix whose rows are no whole number of blocks keeps 16 or
// 32 bits, as the source has it, and so does an embedding that is not the head. Numbers that the source has in FP4
// (V4's experts) become MXFP4, the same numbers, whatever `matrices` is but f32.
struct GgufSaveOptions {
  ops::StoredType matrices = ops::StoredType::bf16, head = ops::StoredType::bf16;
  std::function<void(const std::string&)> note;    // takes gguf_notes (gguf_metadata.h), once the model has its place
  std::function<void(int64_t, int64_t)> progress;  // bytes written so far and in all
};
// f32, f16, bf16, q8_0 or q4_0. Throws Error{where} naming the known ones.
ops::StoredType parse_gguf_type(const std::string& where, const std::string& name);

// Writes `path`, which appears complete or not at all. source: where parameters lie, in the order of rotary rows that
// c.interleaved_rows says; a tensor that has the wanted type already is copied. rows: values that are not those of the
// source (an adapter merged), in the order of directories; may be empty. metadata: what is no setting of the model
// (name, tokenizer). Throws Error: a model that GGUF has no place for (gguf_metadata.h), a number that the type cannot
// hold, a file that cannot be written.
void save_gguf(const Exec& exec, const std::string& path, const model::ModelConfig& c,
               const std::vector<model::ParameterInfo>& parameters, const TensorMap& source, const RowReader& rows,
               io::GgufMetadata metadata, const GgufSaveOptions& options);

}  // namespace birkhoff::checkpoint
