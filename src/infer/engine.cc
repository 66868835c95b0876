#include "infer/engine.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/error.h"
#include "core/process.h"
#include "infer/measured_model.h"
#include "infer/prefix_cache.h"
#include "io/user_files.h"
#include "ops/rows/elementwise.h"

namespace birkhoff::infer {
namespace {

// Logits that a pass makes at a time: their memory is this many rows of the vocabulary.
constexpr int64_t kLogitRows = 64;

// Weights of experts that are asked for at a time: enough to keep a disk busy, little enough that nothing is evicted
// before it was used.
constexpr int64_t kStreamBytes = int64_t{32} << 20;

// Bytes of weights that stay in memory of which so much is left: without what is being read, and a tenth for what the
// system keeps besides and for pages that it has not given back yet.
double memory_for_weights(size_t left) {
  return std::max(0.0, 0.9 * static_cast<double>(left) - 2.0 * static_cast<double>(kStreamBytes));
}

// Of pools as that of the engine.
struct PoolShape {
  ops::CacheType type;
  bool predictors;
};

// What a pass over `texts` pieces of `tokens` tokens each needs, every piece behind `past` others.
model::Pass::Need plan_pieces(const model::Model& m, PoolShape shape, int64_t texts, int64_t tokens, int64_t past,
                              layers::MlaForm form) {
  model::CachePool pool = model::CachePool::measuring(m, shape.type, shape.predictors);
  model::KvCache text(pool, past + tokens);
  text.make_room(past + tokens);
  text.advance(past);
  model::CachedTokens places;
  for (int64_t i = 0; i < texts; ++i) places.add(text, tokens, form);
  const std::vector<int32_t> ids(static_cast<size_t>(texts * tokens));
  const std::vector<int64_t> rows(static_cast<size_t>(std::min(texts * tokens, kLogitRows)));
  return model::Pass::plan([&](const Exec& dry, model::Pass& pass) {
    pass.forward(dry, m, ids, places.context(), {model::Tape::Keep::nothing, model::Recompute::none, &pool});
    pass.logits(dry, m, rows);
    for (size_t k = 0; k < pool.predictors(); ++k) {
      pass.predict(dry, m, k, ids, places.context(), pool);
      pass.logits(dry, m, rows);
    }
  });
}

// The most that any pass over up to kPassTokens tokens of sessions needs: of one text, with as many earlier tokens as
// fit, and with few, which attention may expand; and of as many texts as there are tokens. How a few tokens are
// attended depends on their number.
model::Pass::Need plan_passes(const model::Model& m, PoolShape shape, int64_t capacity) {
  constexpr int64_t kFew = 64;
  const int64_t tokens = std::min(Engine::kPassTokens, capacity);
  model::Pass::Need most;
  for (const layers::MlaForm form : {layers::MlaForm::expanded, layers::MlaForm::absorbed}) {
    if (form == layers::MlaForm::absorbed && m.config.latent_attention == model::LatentAttention::expanded) continue;
    for (int64_t n = 1; n <= std::min(tokens, kFew); ++n) most.include(plan_pieces(m, shape, 1, n, capacity - n, form));
    most.include(plan_pieces(m, shape, 1, tokens, capacity - tokens, form));
    most.include(plan_pieces(m, shape, 1, tokens, std::min(tokens - 1, capacity - tokens), form));
    most.include(plan_pieces(m, shape, Engine::kPassTokens, 1, capacity - 1, form));
  }
  return most;
}

std::string mib(size_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

// Pages of the mapped weights stay in memory while every token reads all of them; those that were quantised are not
// read again.
void require_memory(const std::string& directory, size_t file_bytes, size_t copy_bytes) {
  const size_t have = machine_memory_bytes();
  if (file_bytes + copy_bytes <= have) return;
  throw Error("memory",
              directory + ": weights of " + mib(file_bytes) + " and " + mib(copy_bytes) +
                  " of copies, this machine has " + mib(have),
              "use a machine with more memory, a smaller number format (birkhoff convert), or --stream, which reads "
              "weights from the disk as they are needed");
}

// Why the panels that a directory carries are not those of the model as it is opened.
std::string why_not_carried(const MeasuredModel& m) {
  if (m.weights != *m.carried) return ": its panels are of other number formats";
  if (m.config.latent_attention == model::LatentAttention::expanded) return ": its panels are for caches of latents";
  return ": its panels are not those of its weights (files copied without their times?)";
}

}  // namespace

void require_finite(std::span<const float> logits, int64_t position) {
  if (std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); })) return;
  throw Error("engine", "the logits of position " + std::to_string(position) + " are not finite",
              "a weight is not finite, or the arithmetic overflows: try --dtype fp32", ExitCode::failed);
}

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
      exec_(own_exec_.get()),
      cache_options_(options.caches) {
  MeasuredModel measured(directory_, options);
  for (const std::string& note : measured.notes) add_note(note);
  max_positions_ = measured.max_positions;
  if (!options.stream)
    require_memory(directory_, static_cast<size_t>(measured.shapes->read_in_place),
                   measured.memory.peak() + measured.panels.peak());
  planned_weights_ =
      measured.shapes->read_in_place + static_cast<int64_t>(measured.memory.peak() + measured.panels.peak());
  const bool mapped = map_panels(measured, options);
  const model::Model::Progress progress = measured.letting_go(options.progress);
  files_ = std::move(measured.files);
  if (options.stream) {
    for (const ByteRange region : files_->regions()) read_as_asked(region);
    read_as_asked(panels_->mapped());
  }
  memory_ = std::make_unique<Arena>(measured.memory.peak());
  own_model_ = std::make_unique<model::Model>(measured.config, measured.compute, max_positions_, measured.map.views,
                                              measured.weights, *memory_, panels_->panels());
  if (!mapped) own_model_->quantise(*exec_, progress);
  if (own_model_->rounded_again)
    add_note("products across the blocks of kv_b_proj read it in 8 bits (--weights stored: as it is)");
  model_ = own_model_.get();
  if (options.probe.on()) model::set_routing_probe(*own_model_, options.probe);
  if (measured.adapter) {
    own_model_->attach_adapters(measured.adapter->spec(), false, *memory_);
    measured.adapter->load(*own_model_);
    own_model_->refresh_adapters(*exec_);
  }
  if (options.stream) stream(measured.memory.peak());
}

int64_t Engine::planned_bytes() const {
  model::Pass& pass = session_pass();
  return planned_weights_ + static_cast<int64_t>(pass.kept().capacity() + pass.scratch().capacity()) + caches().used();
}

// False: the panels are to be made in memory.
bool Engine::map_panels(const MeasuredModel& measured, const EngineOptions& options) {
  panels_ = std::make_unique<checkpoint::PanelCache>(measured.panels_directory, *measured.files, *measured.shapes,
                                                     measured.panels.peak());
  if (measured.shapes->quantised.empty() || panels_->open(*exec_, machine_memory_bytes())) return true;
  const std::string& damage = panels_->complaint();
  const bool own = measured.own_panels;
  const std::string missed = !damage.empty() ? damage : own ? directory_ + why_not_carried(measured) : "";
  try {
    if (!own && panels_->make(*exec_, *measured.shapes, measured.letting_go(options.progress))) {
      if (!missed.empty()) add_note(missed + ": made again");
      return true;
    }
  } catch (const Error& e) {
    if (options.stream) throw;
    add_note(e.said() + ": panels are not kept");
  }
  if (options.stream)
    throw Error("stream",
                (missed.empty() ? directory_ + ": its quantised weights are in no file" : missed) +
                    ", and what is streamed lies in files",
                "give --cache DIR, a place for panels, or --weights stored, which reads the model's own files",
                ExitCode::usage);
  if (!missed.empty() && (!own || measured.weights == *measured.carried)) add_note(missed + ": made again");
  return false;
}

// copies: bytes of what was made besides panels.
void Engine::stream(size_t copies) {
  const size_t have = machine_memory_bytes(), budget = static_cast<size_t>(caches().budget()),
               working = copies + session_pass().kept().capacity() + session_pass().scratch().capacity();
  if (working + budget >= have)
    throw Error("memory",
                directory_ + ": working memory of " + mib(working) + " and caches of " + mib(budget) +
                    " leave nothing of " + mib(have) + " for the weights that are read",
                "lower --cache-memory, or use a machine with more memory");
  own_model_->stream_bytes = kStreamBytes;
  std::string path = own_model_->quantised.empty() ? "" : panels_->path();
  for (const std::string& file : files_->paths())
    if (path.empty() || (own_model_->quantised.empty() && io::file_size(file) > io::file_size(path))) path = file;
  // Caches are address space until they are used: where they could take all that is left, they are not waited for.
  const double beside_caches = memory_for_weights(have - working - budget),
               memory = beside_caches > 0 ? beside_caches : memory_for_weights(have - working);
  streamed_ = StreamedSpeed{model::weight_traffic(*own_model_), memory, disk_read_rate(*exec_, path)};
  model::keep_in_memory(*own_model_, streamed_->memory);
  add_note(streamed_->said());
}

Engine::Engine(const model::Model& model, const Exec& exec, std::string directory, CacheOptions caches)
    : directory_(std::move(directory)),
      max_positions_(model.config.max_position_embeddings),
      exec_(&exec),
      model_(&model),
      cache_options_(caches) {
  for (const ops::RopeTable& rope : model.ropes)
    if (rope.dim) max_positions_ = std::min(max_positions_, rope.positions());
}

void Engine::add_note(const std::string& text) {
  if (!text.empty()) note_ += (note_.empty() ? "" : "; ") + text;
}

Engine::~Engine() = default;

model::Pass& Engine::session_pass() const {
  if (!pass_)
    pass_ = std::make_unique<model::Pass>(
        plan_passes(*model_, {caches().type(), caches().predictors() > 0}, max_positions_));
  return *pass_;
}

void Engine::session_logits(std::span<const int64_t> rows,
                            const std::function<void(size_t, std::span<const float>)>& row) const {
  model::Pass& pass = session_pass();
  for (size_t at = 0; at < rows.size(); at += kLogitRows) {
    Arena::Scope scope(pass.scratch());
    const auto some = rows.subspan(at, std::min<size_t>(kLogitRows, rows.size() - at));
    const Mat out = pass.logits(exec(), model(), some);
    for (size_t i = 0; i < some.size(); ++i)
      row(at + i, {out.f32(static_cast<int64_t>(i)), static_cast<size_t>(out.cols)});
  }
}

void Engine::require_predictors() const {
  if (!cache_options_.predictors)
    throw Error("engine", "drafts by prediction modules: the model was opened without them", "open it with them",
                ExitCode::usage);
  if (model_->config.num_nextn_predict_layers == 0)
    throw Error("engine", "drafts by prediction modules: the model has none (num_nextn_predict_layers is 0)",
                "draft by n-grams", ExitCode::usage);
}

model::CachePool& Engine::caches() const {
  if (!caches_) {
    const auto quarter = static_cast<int64_t>(machine_memory_bytes() / 4);
    caches_ = std::make_unique<model::CachePool>(
        *model_, cache_options_.type.value_or(ops::cache_type_of(model_->compute)),
        cache_options_.bytes ? cache_options_.bytes : quarter, cache_options_.predictors);
    if (cache_options_.prefix_bytes && !caches_->has_slots())
      prefixes_ = std::make_unique<PrefixCache>(*caches_, cache_options_.prefix_bytes);
  }
  return *caches_;
}

PrefixCache* Engine::prefixes() const {
  caches();
  if (prefixes_ && prefixes_version_ != model_->weights_version()) prefixes_->clear();
  prefixes_version_ = model_->weights_version();
  return prefixes_.get();
}

// One pass without caches over a whole text; use() is run dry first.
void Engine::read_whole(std::span<const int32_t> ids,
                        const std::function<void(const Exec&, model::Pass&, const model::Tape&)>& use) const {
  const auto T = static_cast<int64_t>(ids.size());
  if (T > max_positions_)
    throw Error("tokens", std::to_string(T) + " tokens, the model reads " + std::to_string(max_positions_),
                "shorten the input: max_position_embeddings is the limit");
  check_ids(model_->config, ids);
  if (T == 0) return;
  const model::SequenceTokens places(T);
  const auto run = [&](const Exec& exec, model::Pass& pass) {
    use(exec, pass, pass.forward(exec, *model_, ids, places.context()));
  };
  model::Pass pass(model::Pass::plan(run));
  run(*exec_, pass);
}

std::vector<float> Engine::full_hidden(std::span<const int32_t> ids) const {
  const auto T = static_cast<int64_t>(ids.size()), D = model_->config.hidden_size;
  std::vector<float> out(static_cast<size_t>(T * D));
  read_whole(ids, [&](const Exec& exec, model::Pass&, const model::Tape& tape) {
    ops::copy(exec, tape.hidden, Mat(out.data(), f32_t, T, D));
  });
  return out;
}

void Engine::full_logits(std::span<const int32_t> ids,
                         const std::function<void(int64_t, std::span<const float>)>& row) const {
  read_whole(ids, [&](const Exec& exec, model::Pass& pass, const model::Tape& tape) {
    for (int64_t t = 0; t < tape.tokens; t += kLogitRows) {
      Arena::Scope scope(pass.scratch());
      const Mat out = pass.logits(exec, *model_, t, std::min(kLogitRows, tape.tokens - t));
      if (exec.dry()) return;
      for (int64_t i = 0; i < out.rows; ++i) {
        const std::span<const float> logits(out.f32(i), static_cast<size_t>(out.cols));
        require_finite(logits, t + i);
        row(t + i, logits);
      }
    }
  });
}

}  // namespace birkhoff::infer
