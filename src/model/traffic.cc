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

// f(l, whether it is one of routed experts) for all that a generated token may read. M: Model or const Model.
template <class M, class F>
void for_token_linears(M& m, F&& f) {
  const std::string predictors = "model.layers." + std::to_string(m.config.num_hidden_layers) + ".";
  layers::for_each_linear(m.weights, "", [&](const std::string& name, auto& l) {
    if (name.rfind(predictors, 0) == 0) return;  // a generated token passes the model's own layers alone
    f(l, name.find(".experts.") != std::string::npos);
  });
  if (m.weights.tied) f(m.weights.head, false);
}

}  // namespace

double WeightTraffic::from_disk(double memory) const {
  return static_cast<double>(every) - kept_of_every(memory) +
         chosen * (static_cast<double>(routed) - kept_of_routed(memory));
}

WeightTraffic weight_traffic(const Model& m) {
  WeightTraffic t;
  if (m.config.n_routed_experts)
    t.chosen = static_cast<double>(m.config.num_experts_per_tok) / static_cast<double>(m.config.n_routed_experts);
  for_token_linears(m, [&](const layers::Linear& l, bool routed) { (routed ? t.routed : t.every) += linear_bytes(l); });
  return t;
}

void keep_in_memory(Model& m, double memory) {
  const WeightTraffic t = weight_traffic(m);
  const double part[] = {t.kept_of_every(memory) / std::max<double>(1, static_cast<double>(t.every)),
                         t.kept_of_routed(memory) / std::max<double>(1, static_cast<double>(t.routed))};
  double due[] = {0, 0};  // bytes that should have stayed so far, less those that did
  for_token_linears(m, [&](layers::Linear& l, bool routed) {
    const auto bytes = static_cast<double>(linear_bytes(l));
    due[routed] += part[routed] * bytes;
    l.passing = due[routed] < bytes / 2;
    if (!l.passing) due[routed] -= bytes;
  });
}

}  // namespace birkhoff::model
