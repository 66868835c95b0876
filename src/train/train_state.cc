#include "train/train_state.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <set>
#include <utility>

#include "core/error.h"
#include "eval/likelihood.h"
#include "ops/experts/balance.h"
#include "ops/experts/routing.h"
#include "optim/schedule.h"
#include "train/gains.h"

namespace birkhoff::train {
namespace {

using Clock = std::chrono::steady_clock;
double ms_since(Clock::time_point t) { return std::chrono::duration<double, std::milli>(Clock::now() - t).count(); }

int64_t counted(const data::Batch& b) {
  return std::count_if(b.labels.begin(), b.labels.end(), [](int32_t l) { return l != kIgnoreLabel; });
}

optim::Schedule schedule_of(const TrainConfig& c) {
  optim::Schedule s;
  s.kind = c.schedule;
  s.lr = c.lr;
  s.min_lr = c.final_lr();
  s.warmup_steps = c.warmup_steps;
  s.total_steps = c.steps;
  return s;
}

bool is_product(layers::Role role) {
  using layers::Role;
  return role == Role::matrix || role == Role::output_projection || role == Role::router || role == Role::hc_fn;
}

// mhc.md 1.5: no decay on norms, biases, gating factors and static parts; with decay_1d on those too. Muon takes 2-D
// weights, phi and router.
std::vector<optim::Parameter> optimizer_view(const model::TrainableSet& set, const TrainConfig& c) {
  using layers::Role;
  std::vector<optim::Parameter> out;
  for (const auto& [p, weight, state, trained] : set.parameters) {
    if (!trained || p.role == Role::router_bias) continue;  // the bias is moved by the balance rule
    const bool indexer = p.name.find(".indexer.") != std::string::npos;
    if (indexer ? !c.indexer().learns : c.indexer().dense) continue;  // the warm-up trains nothing but indexers
    optim::Parameter q;
    q.name = p.name;
    q.weight = weight;
    q.offset = state;
    q.rows = p.rows;
    q.cols = p.cols;
    q.decay = is_product(p.role) || p.role == Role::embedding || p.role == Role::head || c.decay_1d;
    q.muon = moved_by_muon(p, c);
    out.push_back(q);
  }
  return out;
}

layers::Moe::Spec with_balance(layers::Moe::Spec s, const RunConfig& c) {
  const TrainConfig& t = c.train;
  s.balance.expert = t.aux_expert;
  s.balance.device = t.aux_device;
  s.balance.communication = t.aux_communication;
  s.balance.sequence = t.aux_sequence;
  s.balance.mixtral = t.aux_mixtral;
  s.balance.devices = t.aux_devices;
  s.balance.devices_per_token = std::min(t.aux_devices, std::max<int64_t>(1, c.model.topk_group));
  return s;
}

// mtp.h: coefficient / (modules * targets of the step), for every module.
std::vector<float> mtp_scales(const std::vector<std::vector<model::MtpRows>>& parts, size_t modules,
                              double coefficient) {
  std::vector<float> scales;
  for (size_t k = 0; k < modules; ++k) {
    int64_t targets = 0;
    for (const auto& rows : parts) targets += model::mtp_targets(rows[k]);
    scales.push_back(static_cast<float>(
        coefficient / static_cast<double>(static_cast<int64_t>(modules) * std::max<int64_t>(1, targets))));
  }
  return scales;
}

// Tokens per expert of the stack's layers with experts, added to loads[moe_layer], loads[moe_layer + 1], ...
void add_loads(const model::StackTape& t, size_t& moe_layer, std::vector<std::vector<int64_t>>& loads) {
  for (const auto& layer : t.layers) {
    const auto* moe = std::get_if<layers::Moe::Saved>(&layer.ffn);
    if (!moe) continue;
    if (loads.size() <= moe_layer) loads.emplace_back(moe->routing.count.size(), 0);
    for (size_t e = 0; e < moe->routing.count.size(); ++e) loads[moe_layer][e] += moe->routing.count[e];
    ++moe_layer;
  }
}

// The indexers of the blocks that a step trains.
int64_t count_indexers(const model::Model& m, int64_t blocks) {
  return std::count_if(m.blocks.begin(), m.blocks.begin() + blocks, [](const model::BlockSpec& b) {
    const auto* v4 = std::get_if<layers::CompressedAttention::Spec>(&b.attn);
    return std::holds_alternative<layers::SparseMla::Spec>(b.attn) || (v4 && v4->indexed());
  });
}

// The scales of one step's losses, and what they are means over.
struct StepLosses {
  model::LossOptions loss;  // but balance_scale and objective, which are a part's
  int64_t tokens = 0, places = 0, sequences = 0, indexers = 0;
  size_t modules = 0;                                 // prediction modules that are trained
  std::vector<std::vector<model::MtpRows>> mtp_rows;  // [part][module]

  StepLosses(const RunConfig& c, const model::Model& m, const std::vector<data::Batch>& parts);
  // The balance losses of a step are the mean over its sequences: the step's over the part's.
  double parts_like(const data::Batch& b) const {
    return static_cast<double>(sequences) / static_cast<double>(std::max<int64_t>(1, b.rows));
  }
};

double at_least_one(int64_t n) { return static_cast<double>(std::max<int64_t>(1, n)); }

StepLosses::StepLosses(const RunConfig& c, const model::Model& m, const std::vector<data::Batch>& parts) {
  const TrainConfig& t = c.train;
  for (const auto& b : parts) {
    tokens += counted(b);
    places += static_cast<int64_t>(b.ids.size());
    sequences += b.rows;
  }
  modules = t.mtp_loss > 0 && !t.indexer().dense ? m.weights.mtp.size() : 0;
  for (const auto& b : parts) mtp_rows.push_back(model::mtp_rows(b.ids, b.labels, eval::context(b), modules));
  loss.scale = static_cast<float>(1.0 / at_least_one(tokens));
  loss.z_coef = static_cast<float>(t.z_loss);
  loss.mtp_scale = mtp_scales(mtp_rows, modules, t.mtp_loss);
  if (t.indexer().learns) {
    loss.indexer_scale = static_cast<float>(t.indexer_kl / at_least_one(places));
    indexers = count_indexers(m, c.model.num_hidden_layers + static_cast<int64_t>(modules));
  }
  if (t.indexer().dense) loss.scale = 0;  // the warm-up: every gradient but the indexers' is zero
}

optim::OptimizerOptions optimizer_options(const TrainConfig& c, double lr) {
  optim::OptimizerOptions o;
  o.lr = lr;
  o.beta1 = c.beta1;
  o.beta2 = c.beta2;
  o.eps = c.eps;
  o.weight_decay = c.weight_decay;
  o.momentum = c.momentum;
  return o;
}

}  // namespace

bool moved_by_muon(const model::ParameterInfo& p, const TrainConfig& c) {
  return c.optimizer == Optimizer::muon && is_product(p.role);
}

model::MemoryPlan plan_run(const RunConfig& c, int threads) {
  const TrainConfig& t = c.train;
  model::MemoryPlan plan = model::plan_training(c.model, t.dtype, t.batch_size / t.grad_accum, t.seq_len, t.recompute,
                                                threads, t.indexer(), t.scope(c.model));
  Arena memory = Arena::measuring(), scratch = Arena::measuring();
  model::Model m(c.model, t.dtype, t.seq_len, true, memory);
  m.attach_adapters(t.scope(c.model).lora, true, memory);
  const model::TrainableSet set = model::choose_trainable(m, t.scope(c.model));
  optim::ParameterBlocks blocks;
  blocks.size = set.gradient_elements;
  optim::optimizer_step(Exec::dry_run(threads), optimizer_view(set, t), blocks, optimizer_options(t, t.lr), 1, 1,
                        scratch);
  plan.scratch = std::max(plan.scratch, scratch.peak());
  return plan;
}

TrainState::TrainState(const RunConfig& config, int threads)
    : config_(config), plan_(plan_run(config, threads)), exec_(threads), grads_(config.model) {
  model::require_fits(plan_);
  memory_ = std::make_unique<Arena>(plan_.weights + plan_.gradients + plan_.optimizer + (size_t{1} << 20));
  pass_ = std::make_unique<model::Pass>(model::Pass::Need{plan_.kept, plan_.scratch});
  model_ = std::make_unique<model::Model>(config.model, config.train.dtype, config.train.seq_len, true, *memory_);
  for (auto& b : model_->blocks)
    if (auto* moe = std::get_if<layers::Moe::Spec>(&b.ffn)) *moe = with_balance(*moe, config);
  model::set_indexer_training(*model_, config.train.indexer());
  model_->attach_adapters(config.train.scope(config.model).lora, true, *memory_);
  trainable_ = model::choose_trainable(*model_, config.train.scope(config.model));
  blocks_.size = trainable_.gradient_elements;
  blocks_.grad = memory_->take<float>(blocks_.size);
  blocks_.moment1 = memory_->take<float>(trainable_.moment_elements);
  blocks_.moment2 = memory_->take<float>(trainable_.moment_elements);
  grads_ = model::bind_gradients(*model_, trainable_, blocks_.grad);  // fresh pages are zero
  parameters_ = optimizer_view(trainable_, config.train);
}

void TrainState::initialise(const std::function<void(model::Model&)>& load) {
  const auto seed = static_cast<uint64_t>(config_.train.seed);
  if (load)
    load(*model_);
  else
    model::initialise(config_.model, model_->weights, seed);
  model::initialise_adapters(model_->adapters, model_->adapter_block, seed);
  model_->refresh(exec_);
}

void TrainState::accumulate(const std::vector<data::Batch>& parts, const Objective& objective) {
  BK_CHECK(!accumulated_);  // apply comes between
  StepLosses step(config_, *model_, parts);
  const bool dense = config_.train.indexer().dense;
  StepOutcome& out = accumulated_.emplace();
  out.tokens = step.tokens;
  ops::LossSums sums;
  double mtp = 0, index_loss = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const data::Batch& b = parts[i];
    const layers::TokenContext ctx = eval::context(b);
    model::LossOptions& loss = step.loss;
    loss.balance_scale = dense ? 0.f : 1.f / static_cast<float>(step.parts_like(b));
    if (objective && !dense)
      loss.objective = [&objective, i](int64_t t, double log_p) { return objective(i, t, log_p); };
    const auto start = Clock::now();
    model::Tape& tape =
        pass_->forward(exec_, *model_, b.ids, ctx, {model::Tape::Keep::for_backward, config_.train.recompute});
    if (step.modules)
      tape.mtp = model::reserve_mtp(pass_->kept(), *model_, std::move(step.mtp_rows[i]), config_.train.recompute);
    out.forward_ms += ms_since(start);
    const auto middle = Clock::now();
    const model::LossResult r =
        model::backward({exec_, *model_, ctx, pass_->scratch()}, b.ids, b.labels, tape, loss, grads_);
    out.backward_ms += ms_since(middle);
    sums.cross_entropy += r.sums.cross_entropy;
    sums.z += r.sums.z;
    out.objective += r.sums.objective;
    out.aux_loss += r.balance / step.parts_like(b);
    for (size_t k = 0; k < r.mtp.size(); ++k)
      mtp += r.mtp[k].cross_entropy * static_cast<double>(loss.mtp_scale[k]) / config_.train.mtp_loss;
    index_loss += r.indexer;
    size_t moe_layer = 0;
    add_loads(tape, moe_layer, out.expert_load);
    for (const auto& module : tape.mtp) add_loads(module.stack, moe_layer, out.expert_load);
  }
  if (step.modules) out.mtp_loss = mtp;
  if (step.indexers)
    out.indexer_loss = index_loss / static_cast<double>(std::max<int64_t>(1, step.places) * step.indexers);
  out.loss = sums.cross_entropy / at_least_one(out.tokens);
  out.z_loss = config_.train.z_loss * sums.z / at_least_one(out.tokens);
}

StepOutcome TrainState::apply(int64_t step) {
  BK_CHECK(accumulated_);
  StepOutcome out = *std::exchange(accumulated_, std::nullopt);
  const auto start = Clock::now();
  Exec::Span span(exec_, Work::optimizer);
  const TrainConfig& c = config_.train;
  model::clear_frozen(trainable_, blocks_.grad);
  out.grad_norm = optim::global_norm(exec_, blocks_.grad, blocks_.size);
  out.lr = optim::learning_rate(schedule_of(c), step);
  if (!std::isfinite(out.loss) || !std::isfinite(out.grad_norm))
    return out;  // the run stops and says why; weights stay as they are
  const double factor = c.grad_clip > 0 ? optim::clip_factor(out.grad_norm, c.grad_clip) : 1.0;
  pass_->scratch().reset();
  optim::optimizer_step(exec_, parameters_, blocks_, optimizer_options(c, out.lr), step + 1, factor, pass_->scratch());
  if (c.bias_update_speed != 0 && !c.indexer().dense) move_router_biases(out.expert_load);
  model_->refresh(exec_);
  out.optimizer_ms = ms_since(start);
  return out;
}

// Every layer by its own loads of the whole step.
void TrainState::move_router_biases(const std::vector<std::vector<int64_t>>& expert_load) {
  std::set<const void*> moving;
  for (const auto& p : trainable_.parameters)
    if (p.trained && p.info.role == layers::Role::router_bias) moving.insert(p.weight);
  size_t moe_layer = 0;
  for (auto& b : model_->weights.blocks) {
    auto* moe = std::get_if<layers::Moe::Weights>(&b.ffn);
    if (!moe) continue;
    if (moe_layer == expert_load.size()) break;  // prediction modules that are not trained
    if (!moe->bias.empty() && moving.count(moe->bias.data))
      ops::update_router_bias(expert_load[moe_layer], config_.train.bias_update_speed, moe->bias);
    ++moe_layer;
  }
}

double TrainState::evaluate(const std::vector<data::Batch>& batches) {
  const ops::LossSums sums = eval::batch_losses(exec_, *model_, *pass_, batches);
  return sums.tokens ? sums.cross_entropy / static_cast<double>(sums.tokens) : 0;
}

GainRecord TrainState::measure_gains(const data::Batch& b) {
  const model::Tape& tape = pass_->forward(exec_, *model_, b.ids, eval::context(b));
  Arena& scratch = pass_->scratch();
  const int64_t T = tape.tokens, n = model_->residual.streams;
  Mat pre = scratch.mat(f32_t, T, n), post = scratch.mat(f32_t, T, n), res = scratch.mat(f32_t, T, n * n);
  GainMeter meter(T, n);
  for (int64_t s = 0; s < model_->sites(); ++s) {
    ops::site_coefficients(exec_, model_->residual, model_->site(s), tape.site[static_cast<size_t>(s)], pre, post, res);
    meter.add_site(res);
  }
  return {meter.forward(), meter.backward()};
}

std::string TrainState::first_bad_tensor() const {
  const auto bad = [](const float* v, int64_t n) {
    return std::any_of(v, v + n, [](float x) { return !std::isfinite(x); });
  };
  for (const auto& p : trainable_.parameters)
    if (bad(p.weight, p.info.size())) return p.info.name;
  for (const auto& p : trainable_.parameters)
    if (p.state >= 0 && bad(blocks_.grad + p.state, p.info.size())) return p.info.name + " (gradient)";
  return "";
}

}  // namespace birkhoff::train
