// Words of a model's settings.
#pragma once
#include "core/names.h"
#include "ops/attention/rope.h"
#include "ops/experts/routing.h"
#include "ops/residual/residual.h"

namespace birkhoff::model {

enum class TopkMethod { greedy, group_limited_greedy, noaux_tc };
enum class HcMap { learned, fixed };  // fixed: 1/n, ones, identity
enum class HcHead { learned, sum };   // collapse of the streams
enum class HcInitPre { pattern, zero };

// What sessions of models with latent attention keep, and which form it takes (layers::MlaForm).
enum class LatentAttention : uint8_t {
  by_role,   // latents; prompts are expanded, with the bits of training, generated tokens absorbed
  expanded,  // keys and values of every head; all tokens have the bits of training
  absorbed,  // latents; all tokens are absorbed
};

}  // namespace birkhoff::model

namespace birkhoff {

template <>
struct NamesOf<ops::ResidualKind> {
  static constexpr Named<ops::ResidualKind> table[] = {
      {"plain", ops::ResidualKind::plain}, {"hc", ops::ResidualKind::hc}, {"mhc", ops::ResidualKind::mhc}};
};
template <>
struct NamesOf<ops::HcConvention> {
  static constexpr Named<ops::HcConvention> table[] = {{"v4", ops::HcConvention::v4},
                                                       {"paper", ops::HcConvention::paper}};
};
template <>
struct NamesOf<ops::ResForm> {
  static constexpr Named<ops::ResForm> table[] = {
      {"sinkhorn", ops::ResForm::sinkhorn}, {"lite", ops::ResForm::lite}, {"kron", ops::ResForm::kron}};
};
template <>
struct NamesOf<ops::Scoring> {
  static constexpr Named<ops::Scoring> table[] = {{"softmax", ops::Scoring::softmax},
                                                  {"sigmoid", ops::Scoring::sigmoid},
                                                  {"sqrtsoftplus", ops::Scoring::sqrtsoftplus}};
};
template <>
struct NamesOf<ops::RopeScaling::Kind> {
  static constexpr Named<ops::RopeScaling::Kind> table[] = {{"default", ops::RopeScaling::Kind::none},
                                                            {"linear", ops::RopeScaling::Kind::linear},
                                                            {"yarn", ops::RopeScaling::Kind::yarn},
                                                            {"llama3", ops::RopeScaling::Kind::llama3}};
};
template <>
struct NamesOf<model::LatentAttention> {
  static constexpr Named<model::LatentAttention> table[] = {{"auto", model::LatentAttention::by_role},
                                                            {"expanded", model::LatentAttention::expanded},
                                                            {"absorbed", model::LatentAttention::absorbed}};
};
template <>
struct NamesOf<model::TopkMethod> {
  static constexpr Named<model::TopkMethod> table[] = {
      {"greedy", model::TopkMethod::greedy},
      {"group_limited_greedy", model::TopkMethod::group_limited_greedy},
      {"noaux_tc", model::TopkMethod::noaux_tc}};
};
template <>
struct NamesOf<model::HcMap> {
  static constexpr Named<model::HcMap> table[] = {{"learned", model::HcMap::learned}, {"fixed", model::HcMap::fixed}};
};
template <>
struct NamesOf<model::HcHead> {
  static constexpr Named<model::HcHead> table[] = {{"learned", model::HcHead::learned}, {"sum", model::HcHead::sum}};
};
template <>
struct NamesOf<model::HcInitPre> {
  static constexpr Named<model::HcInitPre> table[] = {{"pattern", model::HcInitPre::pattern},
                                                      {"zero", model::HcInitPre::zero}};
};

}  // namespace birkhoff
