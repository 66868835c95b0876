#include "infer/engine.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "checkpoint/adapter.h"
#include "checkpoint/tensor_map.h"
#include "core/error.h"
#include "model/config/json_fields.h"
#include "model/config/notes.h"
#include "model/memory_plan.h"

namespace birkhoff::infer {
namespace {

constexpr int64_t kPiece = 256;  // tokens a session feeds at once; bounds its working memory

// What a piece of `tokens` after `past` others needs in a session.
model::Pass::Need plan_piece(const model::Model& m, int64_t tokens, int64_t past, layers::MlaForm form) {
  Arena cache_memory = Arena::measuring();
  model::KvCache cache = model::KvCache::take(cache_memory, m, past + tokens);
  cache.set_form(form);
  cache.length = past;
  const std::vector<int32_t> ids(static_cast<size_t>(tokens));
  const model::SequenceTokens places(tokens, past);
  return model::Pass::plan([&](const Exec& dry, model::Pass& pass) {
    pass.forward(dry, m, ids, places.context(), {model::Tape::Keep::nothing, model::Recompute::none, &cache});
    pass.logits(dry, m, 0, 1);
  });
}

// The most that any piece of up to `tokens` needs in a session: with as many earlier tokens as fit, and with few, which
// attention may expand. How a few tokens are attended depends on their number.
model::Pass::Need plan_session(const model::Model& m, int64_t tokens, int64_t capacity, layers::MlaForm form) {
  constexpr int64_t kFew = 64;
  model::Pass::Need most;
  const auto add = [&](int64_t n, int64_t past) { most.include(plan_piece(m, n, past, form)); };
  for (int64_t n = 1; n <= std::min(tokens, kFew); ++n) add(n, capacity - n);
  add(tokens, capacity - tokens);
  add(tokens, std::min(tokens - 1, capacity - tokens));
  return most;
}

// Pages of the mapped weights stay in memory while every token reads all of them; those that were quantised are not
// read again.
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
  for (const char* key : {"training", "panels"}) config.erase(key);
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
    : directory_(checkpoint::resolve_model(directory, &note_)),
      own_exec_(std::make_unique<Exec>(options.threads)),
      exec_(own_exec_.get()) {
  files_ = std::make_unique<checkpoint::ModelFiles>(directory_);
  std::string dtype = options.compute;
  model::ModelConfig config = config_with(files_->config(), options.set, dtype);
  const DType compute = compute_type(dtype, files_->config());
  for (const std::string& note : model::reading_notes(config)) add_note(note);
  for (const std::string& note : files_->complete(config)) add_note(note);
  max_positions_ = options.max_positions ? options.max_positions
                                         : std::min(config.max_position_embeddings, options.enough_positions);
  if (!options.adapter.empty() && config.interleaved_rows)
    throw Error("adapter", directory_ + ": an adapter for rotary rows in another order than those of this file",
                "convert the model to a directory first (birkhoff convert)");
  std::optional<checkpoint::AdapterFiles> adapter;
  if (!options.adapter.empty())
    adapter.emplace(options.adapter, config);
  else if (files_->is_directory() && checkpoint::has_adapter(directory_))
    adapter.emplace(directory_, config);
  model::Weights shapes(config);
  const checkpoint::TensorMap map = files_->match(config, model::list_parameters(shapes), compute);
  // A directory that carries its panels is run with them unless something else is asked for.
  const auto carried = checkpoint::carried_formats(files_->config());
  const model::WeightFormats weights = carried && options.weights.automatic() ? *carried : options.weights;
  const bool own = carried && options.panels.empty();
  Arena measuring = Arena::measuring(), panels = Arena::measuring();
  model::Model measured(config, compute, max_positions_, map.views, weights, measuring, panels);
  if (adapter) measured.attach_adapters(adapter->spec(), false, measuring);
  require_memory(directory_, static_cast<size_t>(measured.read_in_place),
                 files_->copied_bytes() + measuring.peak() + panels.peak());
  panels_ =
      std::make_unique<checkpoint::PanelCache>(own ? directory_ : options.panels, *files_, measured, panels.peak());
  files_->expand(*exec_);
  memory_ = std::make_unique<Arena>(measuring.peak());
  own_model_ = std::make_unique<model::Model>(config, compute, max_positions_, map.views, weights, *memory_,
                                              panels_->panels(*exec_));
  if (!panels_->filled()) {
    own_model_->quantise(*exec_, options.progress);
    if (!own)
      panels_->keep(*exec_);
    else if (weights == *carried)
      add_note(directory_ +
               ": its panels are not those of its weights (files copied without their times?): made again");
  }
  add_note(panels_->note());
  model_ = own_model_.get();
  if (options.probe.on()) model::set_routing_probe(*own_model_, options.probe);
  if (!adapter) return;
  own_model_->attach_adapters(adapter->spec(), false, *memory_);
  adapter->load(*own_model_);
  own_model_->refresh_adapters(*exec_);
}

Engine::Engine(const model::Model& model, const Exec& exec, std::string directory)
    : directory_(std::move(directory)),
      max_positions_(model.config.max_position_embeddings),
      exec_(&exec),
      model_(&model) {
  for (const ops::RopeTable& rope : model.ropes)
    if (rope.dim) max_positions_ = std::min(max_positions_, rope.positions());
}

void Engine::add_note(const std::string& text) {
  if (!text.empty()) note_ += (note_.empty() ? "" : "; ") + text;
}

void Engine::plan_sessions(int64_t capacity, MlaForms forms) const {
  if (sessions_.planned.contains({capacity, forms})) return;
  const int64_t piece = std::min(kPiece, capacity);
  model::Pass::Need need = plan_session(*model_, piece, capacity, forms.prompt);
  if (forms.generated != forms.prompt) need.include(plan_session(*model_, piece, capacity, forms.generated));
  need.include(sessions_.need);
  if (need != sessions_.need) {
    sessions_.pass.reset();  // before a larger one is taken
    sessions_.need = {};
    sessions_.pass = std::make_unique<model::Pass>(need);
    sessions_.need = need;
  }
  sessions_.planned.emplace(capacity, forms);
}

void Engine::full_logits(std::span<const int32_t> ids,
                         const std::function<void(int64_t, std::span<const float>)>& row) const {
  const auto T = static_cast<int64_t>(ids.size());
  if (T > max_positions_)
    throw Error("tokens", std::to_string(T) + " tokens, the model reads " + std::to_string(max_positions_),
                "shorten the input: max_position_embeddings is the limit");
  check_ids(model_->config, ids);
  if (T == 0) return;
  const model::SequenceTokens places(T);
  const auto run = [&](const Exec& exec, model::Pass& pass) {
    pass.forward(exec, *model_, ids, places.context());
    for (int64_t t = 0; t < T; t += kPiece) {
      Arena::Scope scope(pass.scratch());
      const Mat out = pass.logits(exec, *model_, t, std::min(kPiece, T - t));
      if (exec.dry()) return;
      for (int64_t i = 0; i < out.rows; ++i) {
        const std::span<const float> logits(out.f32(i), static_cast<size_t>(out.cols));
        require_finite(logits, t + i);
        row(t + i, logits);
      }
    }
  };
  model::Pass pass(model::Pass::plan(run));
  run(*exec_, pass);
}

namespace {
// Memory of a cache of `capacity` tokens.
std::unique_ptr<Arena> take_cache(const Engine& engine, int64_t capacity) {
  if (capacity < 1 || capacity > engine.max_positions())
    throw Error(
        "session",
        "capacity " + std::to_string(capacity) + ", the engine allows 1 to " + std::to_string(engine.max_positions()),
        "ask for fewer tokens");
  Arena measuring = Arena::measuring();
  model::KvCache::take(measuring, engine.model(), capacity);
  return std::make_unique<Arena>(measuring.peak());
}
}  // namespace

Session::Session(const Engine& engine, int64_t capacity, MlaForms forms)
    : engine_(engine),
      memory_(take_cache(engine, capacity)),
      cache_(model::KvCache::take(*memory_, engine.model(), capacity)),
      forms_(forms),
      piece_(std::min(kPiece, capacity)),
      places_(0),
      logits_(static_cast<size_t>(engine.model().config.vocab_size)) {
  engine.plan_sessions(capacity, forms);
}

std::span<const float> Session::feed(std::span<const int32_t> ids, TokenRole role) {
  const model::Model& m = engine_.model();
  check_ids(m.config, ids);
  if (ids.empty()) throw Error("session", "no tokens to feed");
  if (length() + static_cast<int64_t>(ids.size()) > capacity())
    throw Error("session",
                std::to_string(length()) + " + " + std::to_string(ids.size()) + " tokens exceed the capacity " +
                    std::to_string(capacity()),
                "open the session with a larger capacity");
  cache_.set_form(role == TokenRole::prompt ? forms_.prompt : forms_.generated);
  for (size_t done = 0; done < ids.size();) {
    const size_t n = std::min(ids.size() - done, static_cast<size_t>(piece_));
    places_.place(static_cast<int64_t>(n), length());
    model::Pass& pass = engine_.session_pass();
    pass.forward(engine_.exec(), m, ids.subspan(done, n), places_.context(),
                 {model::Tape::Keep::nothing, model::Recompute::none, &cache_});
    done += n;
    if (done < ids.size()) continue;
    const Mat last = pass.logits(engine_.exec(), m, static_cast<int64_t>(n) - 1, 1);
    std::copy_n(last.f32(0), logits_.size(), logits_.begin());
  }
  require_finite(logits_, length() - 1);
  return logits_;
}

}  // namespace birkhoff::infer
