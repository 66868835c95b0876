#include "infer/engine.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "checkpoint/adapter.h"
#include "checkpoint/hf_directory.h"
#include "checkpoint/tensor_map.h"
#include "core/error.h"
#include "model/config/json_fields.h"
#include "model/config/notes.h"
#include "model/memory_plan.h"

namespace birkhoff::infer {
namespace {

constexpr int64_t kPiece = 256;  // tokens a session feeds at once; bounds its working memory

// What one forward needs, found by a dry run.
struct Need {
  size_t tape = 0, scratch = 0;
};
// `tokens` as a whole (cache null: the keys of every layer are in the tape and the scratch), or after those of the
// cache.
Need measure(const model::Model& m, int64_t tokens, model::KvCache* cache) {
  Arena tape_memory = Arena::measuring(), scratch = Arena::measuring();
  const Exec dry = Exec::dry_run(1);
  const std::vector<int32_t> zeros(static_cast<size_t>(tokens));
  const int32_t start = 0;
  const layers::TokenContext ctx{zeros, zeros, {&start, 1}, {&start, 1}};
  model::Tape tape =
      model::reserve_tape(tape_memory, m, tokens, model::Tape::Keep::nothing, model::Recompute::none, cache);
  model::forward(dry, m, zeros, ctx, tape, scratch, cache);
  const int64_t rows = std::min(tokens, kPiece);
  Mat out = scratch.mat(f32_t, rows, m.config.vocab_size);
  model::logits(dry, m, tape.hidden.row_block(0, rows), out);
  return {tape_memory.peak(), scratch.peak()};
}
Need measure_piece(const model::Model& m, int64_t tokens, int64_t past, layers::MlaForm form) {
  Arena cache_memory = Arena::measuring();
  model::KvCache cache = model::KvCache::take(cache_memory, m, past + tokens, form);
  cache.length = past;
  return measure(m, tokens, &cache);
}

// The most that any piece of up to `tokens` needs in a session: with as many earlier tokens as fit, and with few, which
// attention may expand. How a few tokens are attended depends on their number.
Need measure_session(const model::Model& m, int64_t tokens, int64_t capacity, layers::MlaForm form) {
  constexpr int64_t kFew = 64;
  Need most;
  const auto add = [&](int64_t n, int64_t past) {
    const Need need = measure_piece(m, n, past, form);
    most.tape = std::max(most.tape, need.tape), most.scratch = std::max(most.scratch, need.scratch);
  };
  for (int64_t n = 1; n <= std::min(tokens, kFew); ++n) add(n, capacity - n);
  add(tokens, capacity - tokens);
  add(tokens, std::min(tokens - 1, capacity - tokens));
  return most;
}

// Pages of the mapped weights stay in memory while every token reads all of them.
void require_memory(const std::string& directory, size_t file_bytes, size_t copy_bytes) {
  const size_t have = model::machine_memory_bytes();
  if (file_bytes + copy_bytes <= have) return;
  const auto mib = [](size_t bytes) { return std::to_string(bytes >> 20) + " MiB"; };
  throw Error("memory",
              directory + ": weights of " + mib(file_bytes) + " and " + mib(copy_bytes) +
                  " of copies, this machine has " + mib(have),
              "use a machine with more memory, or a smaller number format (birkhoff convert)");
}

DType compute_type(const std::string& asked, const nlohmann::json& config) {
  std::string name = asked;
  if (name.empty() && config.contains("training")) name = model::field_or<std::string>(config["training"], "dtype", "");
  if (name.empty())
    name = model::field_or(config, "torch_dtype", model::field_or<std::string>(config, "dtype", "")) == "float32"
               ? dtype_name(DType::f32)
               : dtype_name(DType::bf16);
  if (const auto type = find_named<DType>(name)) return *type;
  throw Error("dtype", "unknown value \"" + name + "\"", "one of bf16, fp32", ExitCode::usage);
}

model::ModelConfig config_with(nlohmann::json config, const std::vector<std::string>& settings, std::string& dtype) {
  config.erase("training");
  model::ModelConfig c = model::config_from_json(config);
  for (const std::string& text : settings) {
    const auto [key, value] = model::parse_setting(text);
    if (key == "dtype")
      model::assign_field(key, value, dtype);
    else if (!model::set_model_field(c, key, value))
      throw Error("settings", "unknown setting \"" + key + "\" of a model that is run",
                  "dtype and the model's settings of docs/settings.md can be set", ExitCode::usage);
  }
  model::validate(c);
  return c;
}

// A NaN among logits would be sampled as if it were a token.
void require_finite(std::span<const float> logits, int64_t position) {
  if (std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); })) return;
  throw Error("engine", "the logits of position " + std::to_string(position) + " are not finite",
              "a weight is not finite, or the arithmetic overflows: try --dtype fp32", ExitCode::failed);
}

}  // namespace

void check_ids(const model::ModelConfig& c, std::span<const int32_t> ids) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= c.vocab_size)
      throw Error("tokens", "token " + std::to_string(i) + " is " + std::to_string(ids[i]) +
                                ", the vocabulary has ids 0 to " + std::to_string(c.vocab_size - 1));
  }
}

Engine::Engine(const std::string& directory, const EngineOptions& options)
    : directory_(checkpoint::resolve_model_directory(directory, &note_)), exec_(options.threads) {
  nlohmann::json j = checkpoint::read_config_json(directory_);
  std::string dtype = options.compute;
  model::ModelConfig config = config_with(j, options.set, dtype);
  const DType compute = compute_type(dtype, j);
  files_ = std::make_unique<checkpoint::WeightFiles>(directory_);
  for (const std::string& note : model::reading_notes(config)) add_note(note);
  add_note(checkpoint::drop_absent_predictors(*files_, config));
  max_positions_ = options.max_positions ? options.max_positions
                                         : std::min(config.max_position_embeddings, options.enough_positions);
  std::optional<checkpoint::AdapterFiles> adapter;
  if (!options.adapter.empty())
    adapter.emplace(options.adapter, config);
  else if (checkpoint::has_adapter(directory_))
    adapter.emplace(directory_, config);
  require_memory(directory_, files_->bytes(), 0);
  model::Weights shapes(config);
  const checkpoint::TensorMap map = checkpoint::match_tensors(*files_, config, model::list_parameters(shapes));
  Arena measuring = Arena::measuring();
  model::Model measured(config, compute, max_positions_, map.views, measuring);
  if (adapter) measured.attach_adapters(adapter->spec(), false, measuring);
  require_memory(directory_, files_->bytes(), measuring.peak());
  memory_ = std::make_unique<Arena>(measuring.peak());
  model_ = std::make_unique<model::Model>(config, compute, max_positions_, map.views, *memory_);
  if (options.probe.on()) model::set_routing_probe(*model_, options.probe);
  if (!adapter) return;
  model_->attach_adapters(adapter->spec(), false, *memory_);
  adapter->load(*model_);
  model_->refresh_adapters(exec_);
}

void Engine::add_note(const std::string& text) {
  if (!text.empty()) note_ += (note_.empty() ? "" : "; ") + text;
}

void Engine::full_logits(std::span<const int32_t> ids,
                         const std::function<void(int64_t, std::span<const float>)>& row) const {
  const auto T = static_cast<int64_t>(ids.size());
  if (T > max_positions_)
    throw Error("tokens", std::to_string(T) + " tokens, the engine was opened for " + std::to_string(max_positions_),
                "shorten the input or raise the limit on positions");
  check_ids(model_->config, ids);
  if (T == 0) return;
  const Need need = measure(*model_, T, nullptr);
  Arena tape_memory(need.tape), scratch(need.scratch);
  std::vector<int32_t> position(ids.size());
  std::iota(position.begin(), position.end(), 0);
  const std::vector<int32_t> first_key(ids.size(), 0);
  const int32_t start = 0;
  const layers::TokenContext ctx{position, first_key, {&start, 1}, {&start, 1}};
  model::Tape tape = model::reserve_tape(tape_memory, *model_, T, model::Tape::Keep::nothing);
  model::forward(exec_, *model_, ids, ctx, tape, scratch);
  const int64_t V = model_->config.vocab_size;
  for (int64_t t = 0; t < T; t += kPiece) {
    Arena::Scope scope(scratch);
    const int64_t n = std::min(kPiece, T - t);
    Mat out = scratch.mat(f32_t, n, V);
    model::logits(exec_, *model_, tape.hidden.row_block(t, n), out);
    for (int64_t i = 0; i < n; ++i) {
      const std::span<const float> logits(out.f32(i), static_cast<size_t>(V));
      require_finite(logits, t + i);
      row(t + i, logits);
    }
  }
}

Session::Session(const Engine& engine, int64_t capacity, layers::MlaForm form) : engine_(engine) {
  const model::Model& m = engine.model();
  if (capacity < 1 || capacity > engine.max_positions())
    throw Error(
        "session",
        "capacity " + std::to_string(capacity) + ", the engine allows 1 to " + std::to_string(engine.max_positions()),
        "ask for fewer tokens");
  Arena measuring = Arena::measuring();
  model::KvCache::take(measuring, m, capacity);
  memory_ = std::make_unique<Arena>(measuring.peak());
  cache_ = model::KvCache::take(*memory_, m, capacity, form);
  work_tokens_ = std::min(kPiece, capacity);
  const Need need = measure_session(m, work_tokens_, capacity, form);
  work_ = std::make_unique<Arena>(need.tape);
  scratch_ = std::make_unique<Arena>(need.scratch);
  logits_.resize(static_cast<size_t>(m.config.vocab_size));
}

std::span<const float> Session::feed(std::span<const int32_t> ids) {
  const model::Model& m = engine_.model();
  check_ids(m.config, ids);
  if (ids.empty()) throw Error("session", "no tokens to feed");
  if (length() + static_cast<int64_t>(ids.size()) > capacity())
    throw Error("session",
                std::to_string(length()) + " + " + std::to_string(ids.size()) + " tokens exceed the capacity " +
                    std::to_string(capacity()),
                "open the session with a larger capacity");
  for (size_t done = 0; done < ids.size();) {
    const size_t n = std::min(ids.size() - done, static_cast<size_t>(work_tokens_));
    std::vector<int32_t> position(n);
    std::iota(position.begin(), position.end(), static_cast<int32_t>(length()));
    const std::vector<int32_t> first_key(n, 0);
    const int32_t start = 0;
    const layers::TokenContext ctx{position, first_key, {&start, 1}, {&start, 1}};
    work_->reset();
    scratch_->reset();
    model::Tape tape = model::reserve_tape(*work_, m, static_cast<int64_t>(n), model::Tape::Keep::nothing,
                                           model::Recompute::none, &cache_);
    model::forward(engine_.exec(), m, ids.subspan(done, n), ctx, tape, *scratch_, &cache_);
    done += n;
    if (done == ids.size())
      model::logits(engine_.exec(), m, tape.hidden.row_block(static_cast<int64_t>(n) - 1, 1),
                    Mat(logits_.data(), f32_t, 1, m.config.vocab_size));
  }
  require_finite(logits_, length() - 1);
  return logits_;
}

}  // namespace birkhoff::infer
