#include "model/model.h"

#include <algorithm>

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
  weights.for_each_linear(
      [&](layers::Linear& l, bool always_fp32) { l.take_packed(memory, always_fp32 ? f32_t : compute, for_training); });
  make_ropes(positions, memory);
}

Model::Stacked Model::stack(const Mat& place, const float* base, std::span<const ops::StoredTensor> tensors,
                            std::vector<bool>& copied) {
  const int64_t begin = place.f32() - base, end = begin + place.size();
  ops::StoredMatrix& m = stored.emplace_back();
  auto p = std::upper_bound(parameters.begin(), parameters.end(), begin,
                            [](int64_t at, const ParameterInfo& q) { return at < q.offset; }) -
           1;
  const int64_t first_row = (begin - p->offset) / place.cols;
  for (; p != parameters.end() && p->offset < end; ++p) {
    const auto i = static_cast<size_t>(p - parameters.begin());
    m.append(tensors[i]);
    copied[i] = false;
  }
  BK_CHECK(m.rows == place.rows || m.parts.size() == 1);
  return {&m, first_row};
}

Model::Model(const ModelConfig& c, DType compute_type, int64_t positions, std::span<const ops::StoredTensor> tensors,
             Arena& memory)
    : Model(c, compute_type) {
  BK_CHECK_EQ(tensors.size(), parameters.size());
  // Addresses that nobody reads: they only tell which parameters each matrix is made of.
  Arena layout = Arena::measuring();
  const float* base = layout.take<float>(parameter_elements(parameters));
  bind(weights, const_cast<float*>(base));
  std::vector<bool> copied(parameters.size(), true);
  stack(weights.embed, base, tensors, copied);
  weights.for_each_linear([&](layers::Linear& l, bool always_fp32) {
    const Stacked at = stack(l.w, base, tensors, copied);
    l.read_from(*at.matrix, at.first_row, always_fp32 ? f32_t : compute);
  });
  size_t i = 0;
  weights.for_each([&](const std::string&, Mat& m, layers::Role) {
    m.data = copied[i] ? memory.take<float>(m.size()) : nullptr;
    if (copied[i] && !memory.is_measuring()) {
      ops::StoredMatrix one;
      one.append(tensors[i]);
      ops::expand_rows(one, 0, one.rows, m);
    }
    ++i;
  });
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
  weights.for_each_linear([&](layers::Linear& l, bool) { l.take_adapters(memory, spec.scale(), for_training); });
}

void Model::refresh_adapters(const Exec& exec) {
  weights.for_each_linear([&](layers::Linear& l, bool) { l.refresh_adapters(exec); });
}

const ops::SiteWeights& Model::site(int64_t s) const {
  const BlockWeights& b = weights.blocks[static_cast<size_t>(s / 2)];
  return s % 2 == 0 ? b.attn_site : b.ffn_site;
}

void Model::refresh(const Exec& exec) {
  weights.for_each_linear([&](layers::Linear& l, bool) { l.refresh(exec); });
}

void Model::embed(const Exec& exec, std::span<const int32_t> ids, Mat out) const {
  if (stored.empty())
    ops::embedding_forward(exec, weights.embed, ids, out);
  else
    ops::embedding_forward(exec, stored.front(), ids, out);
}

}  // namespace birkhoff::model
