#include "lab/plan/machine.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/process.h"
#include "model/config/inventory.h"
#include "train/bench_train.h"

namespace birkhoff::lab {
namespace {

constexpr double kSliceFlops = 40e9;
constexpr int64_t kSliceParameters = 80'000'000, kMeasuredSteps = 3;
constexpr double kGiga = 1e9;

// As many sequences, or as much of one, as the operations allow.
void cut_tokens(const train::RunConfig& whole, train::RunConfig& slice) {
  constexpr int64_t kFewest = 64, kUnit = 64;
  const int64_t rows = whole.train.batch_size / whole.train.grad_accum, S = whole.train.seq_len;
  const double per_token = model::model_flops(slice.model, 1, S) / static_cast<double>(S);
  const auto tokens = static_cast<int64_t>(kSliceFlops / per_token);
  slice.train.batch_size = std::clamp<int64_t>(tokens / S, 1, rows);
  slice.train.seq_len = std::min(S, std::max(kFewest, tokens / kUnit * kUnit));
}

// Tokens an expert gets stay what they are in the whole.
void cut_experts(const train::RunConfig& whole, train::RunConfig& slice) {
  model::ModelConfig& m = slice.model;
  const int64_t part = whole.train.batch_size / whole.train.grad_accum;  // sequences of one forward
  const double share = static_cast<double>(slice.train.batch_size * slice.train.seq_len) /
                       static_cast<double>(part * whole.train.seq_len);
  const auto experts = static_cast<int64_t>(share * static_cast<double>(whole.model.n_routed_experts));
  m.n_routed_experts = std::clamp(experts, whole.model.num_experts_per_tok, whole.model.n_routed_experts);
  if (m.n_routed_experts < whole.model.n_routed_experts) m.n_group = m.topk_group = 1;
}

// Half the channels, and half the heads where their groups allow it. False when the channels cannot be halved.
bool halve_widths(model::ModelConfig& m) {
  if (m.hidden_size % 2) return false;
  m.hidden_size /= 2;
  const int64_t heads = m.num_attention_heads / 2, kv = std::max<int64_t>(1, m.num_key_value_heads / 2);
  if (heads == 0 || heads % kv || heads % m.o_groups) return true;
  m.num_attention_heads = heads;
  m.num_key_value_heads = kv;
  return true;
}

}  // namespace

train::RunConfig slice_of(const train::RunConfig& whole) {
  train::RunConfig slice = whole;
  model::ModelConfig& m = slice.model;
  const int64_t middle = whole.model.num_hidden_layers / 2;
  m.num_hidden_layers =
      whole.model.uses_compressed_attention() ? std::min<int64_t>(2, whole.model.num_hidden_layers) : 1;
  const bool experts = whole.model.is_moe_layer(middle);
  m.first_k_dense_replace = experts ? 0 : m.num_hidden_layers;
  m.moe_layer_freq = 1;
  m.compress_ratios.clear();
  for (int64_t i = 0; i < m.num_hidden_layers && whole.model.uses_compressed_attention(); ++i)
    m.compress_ratios.push_back(whole.model.compress_ratio(middle + i));
  m.vocab_size = std::max<int64_t>(64, whole.model.vocab_size * m.num_hidden_layers / whole.model.num_hidden_layers);
  m.num_hash_layers = m.num_nextn_predict_layers = 0;
  slice.train.grad_accum = slice.train.aux_devices = 1;
  slice.train.batch_ramp = 0;
  slice.train.optimizer =
      train::Optimizer::adamw;  // its time is not asked for, and Muon's would be most of a step of so few tokens
  slice.train.recompute = model::Recompute::none;
  slice.train.trainable.clear();
  slice.train.lora_targets.clear();
  slice.train.lora_rank = 0;
  slice.train.lora_alpha = 0;
  do {
    cut_tokens(whole, slice);
    if (experts) cut_experts(whole, slice);
  } while (model::take_inventory(m).total > kSliceParameters && halve_widths(m));
  return slice;
}

Machine measure_machine(const train::RunConfig& c, int threads) {
  train::Progress silent(train::kWarmSteps + kMeasuredSteps, false, true);
  const nlohmann::json r = train::bench_train(slice_of(c), kMeasuredSteps, threads, silent);
  Machine m;
  m.cpu = r["cpu"];
  m.cores = threads;
  m.memory_bytes = static_cast<double>(machine_memory_bytes());
  m.flops = r["peak_gflops"].get<double>() * kGiga;
  m.read_bytes = r["read_gbs"].get<double>() * kGiga;
  const double seconds = (r["phase_ms"]["forward"].get<double>() + r["phase_ms"]["backward"].get<double>()) * 1e-3;
  m.efficiency = r["model_flops"].get<double>() / (seconds * m.flops);
  return m;
}

nlohmann::json to_json(const Machine& m) {
  return {{"cpu", m.cpu},
          {"cores", m.cores},
          {"memory_gib", m.memory_bytes / kGib},
          {"gemm_gflops", m.flops / kGiga},
          {"read_gbs", m.read_bytes / kGiga},
          {"efficiency", m.efficiency}};
}

Machine machine_from_json(const nlohmann::json& j, const std::string& name) {
  if (!j.is_object()) throw Error("measured", name + ": no object \"measured\"", "give a file that plan --json wrote");
  const auto positive = [&](const char* key) {
    const auto found = j.find(key);
    if (found == j.end() || !found->is_number())
      throw Error("measured", name + ": " + key + ": expected a number, " +
                                  (found == j.end() ? "is missing" : "is " + found->dump()));
    const double value = found->get<double>();
    if (!(value > 0 && value < 1e18))
      throw Error("measured", name + ": " + key + ": must be positive, is " + found->dump());
    return value;
  };
  Machine m;
  if (j.contains("cpu") && j["cpu"].is_string()) m.cpu = j["cpu"];
  m.cores = static_cast<int>(std::clamp(positive("cores"), 1.0, 1e6));
  m.memory_bytes = positive("memory_gib") * kGib;
  m.flops = positive("gemm_gflops") * kGiga;
  m.read_bytes = positive("read_gbs") * kGiga;
  m.efficiency = positive("efficiency");
  return m;
}

}  // namespace birkhoff::lab
