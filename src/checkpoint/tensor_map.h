// Which tensors of a model directory are which parameters of a model, checked as a whole.
#pragma once
#include <string>
#include <vector>

#include "checkpoint/weight_files.h"
#include "model/config/config.h"
#include "model/weights.h"
#include "ops/gemm/stored_matrix.h"

namespace birkhoff::checkpoint {

struct TensorMap {
  // By parameter, in the order of list_parameters: the tensor of a safetensors file (null of another container), its
  // scales (null without) and both as a matrix, which may be several tensors. Vectors have one row.
  std::vector<const io::TensorEntry*> weights, scales;
  std::vector<ops::StoredMatrix> views;
  std::vector<const io::TensorEntry*> ignored;  // known to the type, no parameter of the model: buffers, copies
};

// Number formats: F32, F16, BF16, F8_E4M3 and F8_E5M2 (with `weight_scale_inv` or `.scale` of F32 or F8_E8M0 per block
// of quantization_config.weight_block_size, 128 x 128), FP4 packed in I8 or U8 (with F8_E8M0 `.scale` per 32 inputs of
// a row). Missing, unknown, duplicate, wrong-shaped and wrong-typed tensors are one Error that lists them all, our name
// and the file's.
TensorMap match_tensors(const WeightFiles& files, const model::ModelConfig& config,
                        const std::vector<model::ParameterInfo>& parameters);

// What is wrong with a table of experts by token id, of whole numbers: "expert 9 of n_routed_experts 8", or "".
std::string experts_out_of_range(const ops::StoredTensor& table, const model::ModelConfig& c);

// Files whose configuration counts prediction modules (num_nextn_predict_layers) but that hold no tensor of any, as
// transformers writes them, are a model without: the count becomes 0, and the sentence that says so is returned; ""
// when nothing was to do.
std::string drop_absent_predictors(const WeightFiles& files, model::ModelConfig& config);

// The shape files have for a parameter.
std::vector<int64_t> file_shape(const model::ParameterInfo& p);
// A shape as messages print it: [rows,columns].
std::string shape_text(const std::vector<int64_t>& shape);
// Names under which files keep the scales of tensor `name`: V3's and V4's.
std::vector<std::string> scale_names(const std::string& name);

}  // namespace birkhoff::checkpoint
