#include "model/model.h"

#include "core/error.h"
#include "ops/rows/embedding.h"

namespace birkhoff::model {

Model::Model(const ModelConfig& c, DType compute_type)
    : config(c), compute(compute_type), residual(c.residual_spec()), weights(c) {
  for (size_t i = 0; i < weights.blocks.size(); ++i) blocks.push_back(c.block_spec(static_cast<int64_t>(i)));
  parameters = list_parameters(weights);
}

void Model::make_ropes(int64_t positions, const Arena& memory) {
  for (const RopeSpec& r : config.rope_specs())
    ropes.push_back(memory.is_measuring() ? ops::RopeTable{}
                                          : ops::make_rope_table(positions, r.dim, r.theta, r.scaling));
}

Model::Model(const ModelConfig& c, DType compute_type, int64_t positions, bool for_training, Arena& memory)
    : Model(c, compute_type) {
  block = memory.take<float>(parameter_elements(parameters));
  bind(weights, block);
  weights.for_each_linear([&](const std::string&, layers::Linear& l) {
    l.take_packed(memory, l.always_fp32 ? f32_t : compute, for_training);
  });
  make_ropes(positions, memory);
}

Model::Model(const ModelConfig& c, DType compute_type, int64_t positions, std::span<const ops::StoredTensor> tensors,
             Arena& memory)
    : Model(c, compute_type) {
  BK_CHECK_EQ(tensors.size(), parameters.size());
  size_t i = 0;
  // The next tensors of the list, one above the other.
  const auto next = [&](size_t count) -> const ops::StoredMatrix& {
    ops::StoredMatrix& m = stored.emplace_back();
    for (; count > 0; --count) m.append(tensors[i++]);
    return m;
  };
  const auto read = [&](layers::Linear& l, const ops::StoredMatrix& m, int64_t first_row) {
    l.read_from(m, first_row, l.always_fp32 ? f32_t : compute);
  };
  const auto copy_next = [&](Mat& m) {
    m.data = memory.take<float>(m.size());
    ops::StoredMatrix one;
    one.append(tensors[i++]);
    if (!memory.is_measuring()) ops::expand_rows(one, 0, one.rows, m);
  };
  Weights::visit(weights, "",
                 layers::Overloaded{[&](const std::string&, layers::Linear& l) { read(l, next(l.parts.size()), 0); },
                                    [&](const std::string&, layers::GroupedLinear& l) {
                                      const ops::StoredMatrix& m = next(1);
                                      for (size_t g = 0; g < l.of.size(); ++g)
                                        read(l.of[g], m, static_cast<int64_t>(g) * l.of[g].out());
                                    },
                                    [&](const std::string&, Mat& m, layers::Role role) {
                                      role == layers::Role::embedding ? void(next(1)) : copy_next(m);
                                    }});
  if (weights.tied) read(weights.head, stored.front(), 0);
  make_ropes(positions, memory);
}

void Model::attach_adapters(const LoraSpec& spec, bool for_training, Arena& memory) {
  BK_CHECK(lora.empty());
  lora = spec;
  if (spec.empty()) return;
  add_adapters(config, spec, weights);
  adapters = list_adapters(config, spec, weights);
  adapter_block = memory.take<float>(parameter_elements(adapters));
  size_t i = 0;
  for_each_adapter_matrix(weights, [&](Mat& m) { m.data = adapter_block + adapters[i++].offset; });
  weights.for_each_linear(
      [&](const std::string&, layers::Linear& l) { l.take_adapters(memory, spec.scale(), for_training); });
}

void Model::refresh_adapters(const Exec& exec) {
  weights.for_each_linear([&](const std::string&, layers::Linear& l) { l.refresh_adapters(exec); });
}

const ops::SiteWeights& Model::site(int64_t s) const {
  const BlockWeights& b = weights.blocks[static_cast<size_t>(s / 2)];
  return s % 2 == 0 ? b.attn_site : b.ffn_site;
}

void Model::refresh(const Exec& exec) {
  weights.for_each_linear([&](const std::string&, layers::Linear& l) { l.refresh(exec); });
}

void Model::embed(const Exec& exec, std::span<const int32_t> ids, Mat out) const {
  if (stored.empty())
    ops::embedding_forward(exec, weights.embed, ids, out);
  else
    ops::embedding_forward(exec, stored.front(), ids, out);
}

}  // namespace birkhoff::model
