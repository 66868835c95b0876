#include "model/traffic.h"

#include <algorithm>
#include <string>

namespace birkhoff::model {
namespace {

int64_t operand_bytes(const ops::Packed& p) {
  if (p.quant) return ops::QuantMatrix::bytes(p.quant->type, p.quant->rows, p.quant->cols);
  if (!p.stored) return ops::Packed::bytes(p.dtype, p.k, p.n);
  const int64_t first = p.first_row, end = p.first_row + (p.transposed ? p.n : p.k);
  int64_t bytes = 0, row = 0;
  for (const ops::StoredMatrix::Part& part : p.stored->parts) {
    const int64_t rows = std::max<int64_t>(0, std::min(end, row + part.rows()) - std::max(first, row));
    bytes += rows * (part.tensor.rows * part.tensor.row_bytes() / std::max<int64_t>(1, part.rows()));
    row += part.rows();
  }
  return bytes;
}

int64_t linear_bytes(const layers::Linear& l) {
  if (l.row_blocks.empty()) return operand_bytes(l.forward);
  int64_t bytes = 0;
  for (const layers::Linear::RowBlocks& b : l.row_blocks)
    for (const ops::Packed& p : b.packed) bytes += operand_bytes(p);
  return bytes;
}

}  // namespace

double WeightTraffic::from_disk(double memory) const {
  const double all = static_cast<double>(every) + static_cast<double>(routed);
  if (memory >= all) return 0;
  return memory < per_token() ? per_token() : chosen * (all - memory);
}

WeightTraffic weight_traffic(const Model& m) {
  WeightTraffic t;
  if (m.config.n_routed_experts)
    t.chosen = static_cast<double>(m.config.num_experts_per_tok) / static_cast<double>(m.config.n_routed_experts);
  const std::string predictors = "model.layers." + std::to_string(m.config.num_hidden_layers) + ".";
  const auto add = [&](const std::string& name, const layers::Linear& l) {
    if (name.rfind(predictors, 0) == 0) return;  // a generated token passes the model's own layers alone
    (name.find(".experts.") != std::string::npos ? t.routed : t.every) += linear_bytes(l);
  };
  layers::for_each_linear(m.weights, "", add);
  if (m.weights.tied) add("", m.weights.head);
  return t;
}

}  // namespace birkhoff::model
