#include "model/model.h"

namespace birkhoff::model {

Model::Model(const ModelConfig& c, DType compute_type, int64_t positions, bool for_training, Arena& memory)
    : config(c),
      compute(compute_type),
      residual(c.residual_spec()),
      weights(c) {
  for (size_t i = 0; i < weights.blocks.size(); ++i) blocks.push_back(c.block_spec(static_cast<int64_t>(i)));
  parameters = list_parameters(weights);
  block = memory.take<float>(parameter_elements(parameters));
  bind(weights, block);
  weights.for_each_linear([&](layers::Linear& l, bool always_fp32) { l.take_packed(memory, always_fp32 ? f32_t : compute, for_training); });
  for (const RopeSpec& r : c.rope_specs())
    ropes.push_back(memory.is_measuring() ? ops::RopeTable{} : ops::make_rope_table(positions, r.dim, r.theta, r.scaling));
}

const ops::SiteWeights& Model::site(int64_t s) const {
  const BlockWeights& b = weights.blocks[static_cast<size_t>(s / 2)];
  return s % 2 == 0 ? b.attn_site : b.ffn_site;
}

void Model::refresh(const Exec& exec) {
  weights.for_each_linear([&](layers::Linear& l, bool) { l.refresh(exec); });
}

}  // namespace birkhoff::model
