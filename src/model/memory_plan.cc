#include "model/memory_plan.h"

#include <algorithm>
#include <cstdio>
#include <span>

#include "core/process.h"
#include "model/pass.h"
#include "ops/rows/cross_entropy.h"

namespace birkhoff::model {
namespace {

// Program text, libraries, allocator and thread pool as measured after start-up; a worker's blocks as measured in
// training.
constexpr size_t kProcessBytes = size_t{16} << 20;
constexpr size_t kWorkerBytes = size_t{4} << 20;

std::string mib(size_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.0f MiB", static_cast<double>(bytes) / (1 << 20));
  return text;
}

}  // namespace

MemoryPlan plan_training(const ModelConfig& c, DType compute, int64_t rows, int64_t seq_len, Recompute policy,
                         int threads, IndexerTraining indexer, const TrainingScope& scope) {
  MemoryPlan plan;
  const int64_t tokens = rows * seq_len;
  Arena memory = Arena::measuring(), grad_memory = Arena::measuring();
  Model m(c, compute, seq_len, true, memory);
  set_indexer_training(m, indexer);
  m.attach_adapters(scope.lora, true, memory);
  const TrainableSet set = choose_trainable(m, scope);
  Weights grads = bind_gradients(m, set, grad_memory.take<float>(set.gradient_elements));
  plan.weights = memory.peak();
  plan.gradients = grad_memory.peak();
  Arena moments = Arena::measuring();
  for (int64_t n : {set.moment_elements, set.moment_elements}) moments.take<float>(n);
  plan.optimizer = moments.peak();

  Arena places = Arena::measuring();  // a plan costs no memory, and a dry step reads nothing
  const std::span<const int32_t> ids(places.take<int32_t>(tokens), static_cast<size_t>(tokens));
  const std::span<const int32_t> starts(places.take<int32_t>(rows), static_cast<size_t>(rows));
  const layers::TokenContext ctx{ids, ids, starts, starts};
  const Pass::Need need = Pass::plan(
      [&](const Exec& dry, Pass& pass) {
        Tape& tape = pass.forward(dry, m, ids, ctx, {Tape::Keep::for_backward, policy});
        tape.mtp = reserve_mtp(pass.kept(), m, tokens, policy);
        LossOptions loss;
        loss.mtp_scale.resize(tape.mtp.size());
        loss.indexer_scale = indexer.learns ? 1.f : 0.f;
        backward({dry, m, ctx, pass.scratch()}, ids, ids, tape, loss, grads);
        const Tape& validation = pass.forward(dry, m, ids, ctx);  // in the same memory
        ops::cross_entropy_forward(dry, validation.hidden, m.weights.head.forward, ids, {}, pass.scratch());
      },
      threads);
  plan.kept = need.kept;
  plan.scratch = need.scratch;
  plan.workers = kWorkerBytes * static_cast<size_t>(threads);
  plan.process = kProcessBytes;
  for (const RopeSpec& r : c.rope_specs()) plan.process += static_cast<size_t>(seq_len * r.dim) * 4;
  return plan;
}

void require_fits(const MemoryPlan& plan) {
  const size_t have = machine_memory_bytes();
  if (plan.total() <= have) return;
  throw Error(
      "memory", "the run needs " + mib(plan.total()) + ", this machine has " + mib(have) + "\n" + describe(plan),
      plan.workers > plan.kept && plan.workers > plan.weights
          ? "most of it is working memory of the threads: lower --threads"
      : plan.kept > plan.weights ? "use recompute=layer, a smaller batch_size with grad_accum, or a smaller seq_len"
                                 : "use a smaller model: fewer layers, experts or a smaller hidden_size");
}

std::string describe(const MemoryPlan& p) {
  std::string text;
  const auto line = [&](const char* name, size_t bytes) { text += std::string("  ") + name + mib(bytes) + "\n"; };
  line("weights      ", p.weights);
  line("gradients    ", p.gradients);
  line("optimizer    ", p.optimizer);
  line("activations  ", p.kept);
  line("scratch      ", p.scratch);
  line("workers      ", p.workers);
  line("process      ", p.process);
  line("total        ", p.total());
  return text;
}

}  // namespace birkhoff::model
