// The kinds of sub-layer that a block is made of. One list per place: a new kind is added to the variants here, and
// everything else (weights, tape, cache, forward, backward) follows from its Layer.
#pragma once
#include <variant>

#include "layers/compressed_attention.h"
#include "layers/dense_ffn.h"
#include "layers/gqa.h"
#include "layers/mla.h"
#include "layers/moe.h"
#include "layers/sparse_mla.h"

namespace birkhoff::model {

using AttentionSpec =
    std::variant<layers::Mla::Spec, layers::Gqa::Spec, layers::SparseMla::Spec, layers::CompressedAttention::Spec>;
using AttentionWeights = std::variant<layers::Mla::Weights, layers::Gqa::Weights, layers::SparseMla::Weights,
                                      layers::CompressedAttention::Weights>;
using AttentionSaved =
    std::variant<layers::Mla::Saved, layers::Gqa::Saved, layers::SparseMla::Saved, layers::CompressedAttention::Saved>;
using AttentionCache =
    std::variant<layers::Mla::Cache, layers::Gqa::Cache, layers::SparseMla::Cache, layers::CompressedAttention::Cache>;

using FfnSpec = std::variant<layers::DenseFfn::Spec, layers::Moe::Spec>;
using FfnWeights = std::variant<layers::DenseFfn::Weights, layers::Moe::Weights>;
using FfnSaved = std::variant<layers::DenseFfn::Saved, layers::Moe::Saved>;

// What one block computes; `rope` numbers its rotary table among ModelConfig::rope_specs().
struct BlockSpec {
  AttentionSpec attn;
  FfnSpec ffn;
  size_t rope = 0;
};

// The layer type of a specification of one of these variants.
template <class Spec>
using LayerOf = typename Spec::Layer;

}  // namespace birkhoff::model
