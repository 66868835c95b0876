#include "model/model.h"

namespace birkhoff::model {

Model::Model(const ModelConfig& c, DType compute_type, int64_t positions, bool for_training, Arena& memory)
    : config(c),
      compute(compute_type),
      residual(c.residual_spec()),
      mla(c.uses_mla() ? c.mla_spec() : layers::Mla::Spec{}),
      gqa(c.uses_mla() ? layers::Gqa::Spec{} : c.gqa_spec()),
      moe(c.n_routed_experts ? c.moe_spec() : layers::Moe::Spec{}),
      weights(c) {
  parameters = list_parameters(weights);
  block = memory.take<float>(parameter_elements(parameters));
  bind(weights, block);
  weights.for_each_linear([&](layers::Linear& l, bool always_fp32) { l.take_packed(memory, always_fp32 ? f32_t : compute, for_training); });
  if (!memory.is_measuring()) rope = ops::make_rope_table(positions, c.rope_dim(), c.rope_theta, c.rope_scaling);
}

const ops::SiteWeights& Model::site(int64_t s) const {
  const BlockWeights& b = weights.blocks[static_cast<size_t>(s / 2)];
  return s % 2 == 0 ? b.attn_site : b.ffn_site;
}

void Model::refresh(const Exec& exec) {
  weights.for_each_linear([&](layers::Linear& l, bool) { l.refresh(exec); });
}

}  // namespace birkhoff::model
