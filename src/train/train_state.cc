#include <algorithm>
#include <chrono>
#include <cmath>
#include <set>

#include "core/error.h"
#include "eval/likelihood.h"
#include "ops/experts/balance.h"
#include "ops/experts/routing.h"
#include "optim/schedule.h"
#include "train/gains.h"
#include "train/trainer.h"

namespace birkhoff::train {
namespace {

using Clock = std::chrono::steady_clock;
double ms_since(Clock::time_point t) { return std::chrono::duration<double, std::milli>(Clock::now() - t).count(); }

layers::TokenContext context(const data::Batch& b) {
  return {b.position, b.first_key, b.segment_start, b.sequence_start};
}

int64_t counted(const data::Batch& b) {
  return std::count_if(b.labels.begin(), b.labels.end(), [](int32_t l) { return l != ops::kIgnoreLabel; });
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

// Scales the losses for what the stage of the indexers lets move; places: positions of the step. In the warm-up every
// gradient but theirs is zero, and so is its share of the norm.
void scale_for_indexers(const TrainConfig& c, int64_t places, model::LossOptions& loss) {
  if (c.indexer().learns)
    loss.indexer_scale = static_cast<float>(c.indexer_kl / static_cast<double>(std::max<int64_t>(1, places)));
  if (c.indexer().dense) loss.scale = 0;
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
  model::MemoryPlan plan = model::plan_training(c.model, t.compute(), t.batch_size / t.grad_accum, t.seq_len,
                                                t.policy(), threads, t.indexer(), t.scope(c.model));
  Arena memory = Arena::measuring(), scratch = Arena::measuring();
  model::Model m(c.model, t.compute(), t.seq_len, true, memory);
  m.attach_adapters(t.scope(c.model).lora, true, memory);
  const model::TrainableSet set = model::choose_trainable(m, t.trainable);
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
  kept_ = std::make_unique<Arena>(plan_.kept);
  scratch_ = std::make_unique<Arena>(plan_.scratch);
  model_ = std::make_unique<model::Model>(config.model, config.train.compute(), config.train.seq_len, true, *memory_);
  for (auto& b : model_->blocks)
    if (auto* moe = std::get_if<layers::Moe::Spec>(&b.ffn)) *moe = with_balance(*moe, config);
  model::set_indexer_training(*model_, config.train.indexer());
  model_->attach_adapters(config.train.scope(config.model).lora, true, *memory_);
  trainable_ = model::choose_trainable(*model_, config.train.trainable);
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

StepOutcome TrainState::step(int64_t step, const std::vector<data::Batch>& parts) {
  StepOutcome out;
  for (const auto& b : parts) out.tokens += counted(b);
  model::LossOptions loss;
  loss.scale = static_cast<float>(1.0 / static_cast<double>(std::max<int64_t>(1, out.tokens)));
  loss.z_coef = static_cast<float>(config_.train.z_loss);
  int64_t sequences = 0;
  for (const auto& b : parts) sequences += b.rows;
  const size_t modules = config_.train.mtp_loss > 0 && !config_.train.indexer().dense ? model_->weights.mtp.size() : 0;
  std::vector<std::vector<model::MtpRows>> mtp_rows;
  for (const auto& b : parts) mtp_rows.push_back(model::mtp_rows(b.ids, b.labels, context(b), modules));
  loss.mtp_scale = mtp_scales(mtp_rows, modules, config_.train.mtp_loss);
  int64_t places = 0;
  for (const auto& b : parts) places += static_cast<int64_t>(b.ids.size());
  scale_for_indexers(config_.train, places, loss);
  const int64_t indexers =
      config_.train.indexer().learns
          ? count_indexers(*model_, config_.model.num_hidden_layers + static_cast<int64_t>(modules))
          : 0;
  double index_loss = 0;
  ops::LossSums sums;
  double mtp = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const data::Batch& b = parts[i];
    kept_->reset();
    scratch_->reset();
    const auto T = static_cast<int64_t>(b.ids.size());
    // The balance losses of a step are the mean over its sequences.
    const double part = static_cast<double>(sequences) / static_cast<double>(std::max<int64_t>(1, b.rows));
    loss.balance_scale = config_.train.indexer().dense ? 0.f : 1.f / static_cast<float>(part);
    const auto start = Clock::now();
    model::Tape tape = model::reserve_tape(*kept_, *model_, T, model::Tape::Keep::for_backward, config_.train.policy());
    if (modules) tape.mtp = model::reserve_mtp(*kept_, *model_, std::move(mtp_rows[i]), config_.train.policy());
    model::forward(exec_, *model_, b.ids, context(b), tape, *scratch_);
    out.forward_ms += ms_since(start);
    const auto middle = Clock::now();
    const model::LossResult r =
        model::backward(exec_, *model_, b.ids, b.labels, context(b), tape, loss, grads_, *scratch_);
    out.backward_ms += ms_since(middle);
    sums.cross_entropy += r.sums.cross_entropy;
    sums.z += r.sums.z;
    out.aux_loss += r.balance / part;
    for (size_t k = 0; k < r.mtp.size(); ++k)
      mtp += r.mtp[k].cross_entropy * static_cast<double>(loss.mtp_scale[k]) / config_.train.mtp_loss;
    index_loss += r.indexer;
    size_t moe_layer = 0;
    add_loads(tape, moe_layer, out.expert_load);
    for (const auto& module : tape.mtp) add_loads(module.stack, moe_layer, out.expert_load);
  }
  if (modules) out.mtp_loss = mtp;
  if (indexers) out.indexer_loss = index_loss / static_cast<double>(std::max<int64_t>(1, places) * indexers);
  const double n = static_cast<double>(std::max<int64_t>(1, out.tokens));
  out.loss = sums.cross_entropy / n;
  out.z_loss = config_.train.z_loss * sums.z / n;
  const auto start = Clock::now();
  optimizer_step(step, out);
  out.optimizer_ms = ms_since(start);
  return out;
}

void TrainState::optimizer_step(int64_t step, StepOutcome& out) {
  Exec::Span span(exec_, Work::optimizer);
  const TrainConfig& c = config_.train;
  model::clear_frozen(trainable_, blocks_.grad);
  out.grad_norm = optim::global_norm(exec_, blocks_.grad, blocks_.size);
  out.lr = optim::learning_rate(schedule_of(c), step);
  if (!std::isfinite(out.loss) || !std::isfinite(out.grad_norm))
    return;  // the loop stops and says why; weights stay as they are
  const double factor = c.grad_clip > 0 ? optim::clip_factor(out.grad_norm, c.grad_clip) : 1.0;
  scratch_->reset();
  optim::optimizer_step(exec_, parameters_, blocks_, optimizer_options(c, out.lr), step + 1, factor, *scratch_);
  if (c.bias_update_speed != 0 && !c.indexer().dense) {
    std::set<const void*> moving;
    for (const auto& p : trainable_.parameters)
      if (p.trained && p.info.role == layers::Role::router_bias) moving.insert(p.weight);
    size_t moe_layer = 0;
    for (auto& b : model_->weights.blocks) {
      auto* moe = std::get_if<layers::Moe::Weights>(&b.ffn);
      if (!moe) continue;
      if (moe_layer == out.expert_load.size()) break;  // prediction modules that are not trained
      if (!moe->bias.empty() && moving.count(moe->bias.data))
        ops::update_router_bias(out.expert_load[moe_layer], c.bias_update_speed, moe->bias);
      ++moe_layer;
    }
  }
  model_->refresh(exec_);
}

double TrainState::evaluate(const std::vector<data::Batch>& batches) {
  model::Pass pass(*kept_, *scratch_);
  const ops::LossSums sums = eval::batch_losses(exec_, *model_, pass, batches);
  return sums.tokens ? sums.cross_entropy / static_cast<double>(sums.tokens) : 0;
}

GainRecord TrainState::measure_gains(const data::Batch& b) {
  kept_->reset();
  scratch_->reset();
  const auto T = static_cast<int64_t>(b.ids.size());
  const int64_t n = model_->residual.streams;
  model::Tape tape = model::reserve_tape(*kept_, *model_, T, model::Tape::Keep::nothing);
  model::forward(exec_, *model_, b.ids, context(b), tape, *scratch_);
  scratch_->reset();
  Mat pre = scratch_->mat(f32_t, T, n), post = scratch_->mat(f32_t, T, n), res = scratch_->mat(f32_t, T, n * n);
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
