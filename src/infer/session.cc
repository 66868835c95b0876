#include "infer/session.h"

#include <algorithm>

#include "core/error.h"
#include "infer/mtp_draft.h"
#include "infer/prefix_cache.h"

namespace birkhoff::infer {
namespace {

void check_capacity(const Engine& engine, int64_t capacity) {
  if (capacity >= 1 && capacity <= engine.max_positions()) return;
  throw Error(
      "session",
      "capacity " + std::to_string(capacity) + ", the engine allows 1 to " + std::to_string(engine.max_positions()),
      "ask for fewer tokens");
}

void check_room(const Session& s, std::span<const int32_t> ids) {
  check_ids(s.engine().model().config, ids);
  if (ids.empty()) throw Error("session", "no tokens to feed");
  if (s.length() + static_cast<int64_t>(ids.size()) > s.capacity())
    throw Error("session",
                std::to_string(s.length()) + " + " + std::to_string(ids.size()) + " tokens exceed the capacity " +
                    std::to_string(s.capacity()),
                "open the session with a larger capacity");
}

}  // namespace

// One pass over pieces of sessions.
class BatchPass {
 public:
  BatchPass(const Engine& engine, std::span<const BatchPiece> pieces) : engine_(engine), pieces_(pieces) {
    for (const BatchPiece& piece : pieces) {
      BK_CHECK(&piece.session->engine() == &engine);
      check_room(*piece.session, piece.ids);
      ids_.insert(ids_.end(), piece.ids.begin(), piece.ids.end());
    }
    BK_CHECK_LE(static_cast<int64_t>(ids_.size()), Engine::kPassTokens);
  }

  // Until all is read the sessions are what they were.
  void read() {
    try {
      for (const BatchPiece& piece : pieces_) piece.session->cache_.make_room(tokens_of(piece), first_written(piece));
      forward();
    } catch (...) {
      for (const BatchPiece& piece : pieces_) piece.session->rewind(piece.session->length());
      throw;
    }
    for (const BatchPiece& piece : pieces_) advance(piece);
  }

  void give_logits(const BatchRow& row) {
    const std::vector<Wanted> wanted = wanted_rows();
    std::vector<int64_t> rows;
    for (const Wanted& w : wanted) rows.push_back(w.row);
    engine_.session_logits(
        rows, [&](size_t i, std::span<const float> logits) { row(wanted[i].piece, wanted[i].token, logits); });
  }

  // What prompts leave for others: with the rows of prediction modules, which are those of the text so far.
  void keep_prompts() {
    std::vector<Session*> prompts;
    for (const BatchPiece& piece : pieces_)
      if (piece.role == TokenRole::prompt) prompts.push_back(piece.session);
    read_prompts_for_mtp(engine_, prompts);
    for (Session* s : prompts) s->remember();
  }

 private:
  void forward() {
    model::CachedTokens places;
    for (const BatchPiece& piece : pieces_)
      places.add(piece.session->cache_, tokens_of(piece), mla_form(engine_, piece.role));
    engine_.session_pass().forward(engine_.exec(), engine_.model(), ids_, places.context(),
                                   {model::Tape::Keep::nothing, model::Recompute::none, &engine_.caches()});
  }

  struct Wanted {
    size_t piece;
    int64_t token, row;
  };
  static int64_t tokens_of(const BatchPiece& piece) { return static_cast<int64_t>(piece.ids.size()); }
  // Of a prompt prediction modules write the rows that they lack.
  static int64_t first_written(const BatchPiece& piece) {
    const Session& s = *piece.session;
    return piece.role == TokenRole::prompt && s.can_predict() ? std::min(s.predicted_, s.length()) : s.length();
  }
  static void advance(const BatchPiece& piece) {
    Session& s = *piece.session;
    if (s.predicted_ > s.length() && s.ahead_ != piece.ids.front()) s.predicted_ = s.length();
    s.cache_.advance(tokens_of(piece));
    if (piece.role == TokenRole::prompt && s.prompt_tokens_ == static_cast<int64_t>(s.ids_.size()))
      s.prompt_tokens_ += tokens_of(piece);
    s.ids_.insert(s.ids_.end(), piece.ids.begin(), piece.ids.end());
  }

  std::vector<Wanted> wanted_rows() const {
    std::vector<Wanted> wanted;
    int64_t first = 0;
    for (size_t i = 0; i < pieces_.size(); ++i) {
      const int64_t n = tokens_of(pieces_[i]);
      for (int64_t t = std::max<int64_t>(0, n - pieces_[i].logits); t < n; ++t) wanted.push_back({i, t, first + t});
      first += n;
    }
    return wanted;
  }

  const Engine& engine_;
  std::span<const BatchPiece> pieces_;
  std::vector<int32_t> ids_;
};

layers::MlaForm mla_form(const Engine& engine, TokenRole role) {
  const model::LatentAttention how = engine.model().config.latent_attention;
  const bool expanded =
      how == model::LatentAttention::by_role ? role == TokenRole::prompt : how == model::LatentAttention::expanded;
  return expanded ? layers::MlaForm::expanded : layers::MlaForm::absorbed;
}

void run_batch(const Engine& engine, std::span<const BatchPiece> pieces, const BatchRow& row) {
  BatchPass pass(engine, pieces);
  pass.read();
  pass.give_logits(row);
  pass.keep_prompts();
}

Session::Session(const Engine& engine, int64_t capacity)
    : engine_(&engine),
      cache_((check_capacity(engine, capacity), engine.caches()), capacity),
      weights_version_(engine.model().weights_version()) {}

std::span<const float> Session::feed(std::span<const int32_t> ids, TokenRole role) {
  check_room(*this, ids);
  const int64_t before = length();
  if (role == TokenRole::prompt && before == 0) ids = ids.subspan(static_cast<size_t>(recall(ids)));
  logits_.resize(static_cast<size_t>(engine_->model().config.vocab_size));
  try {
    for (;;) {
      const auto piece = ids.first(std::min(ids.size(), static_cast<size_t>(Engine::kPassTokens)));
      const bool last = piece.size() == ids.size();
      const BatchPiece pieces[] = {{this, piece, role, last ? 1 : 0}};
      run_batch(*engine_, pieces, [&](size_t, int64_t, std::span<const float> row) {
        require_finite(row, length() - 1);
        std::copy(row.begin(), row.end(), logits_.begin());
      });
      if (last) return logits_;
      ids = ids.subspan(piece.size());
    }
  } catch (...) {
    rewind(before);
    throw;
  }
}

bool Session::rewind(int64_t tokens) {
  if (!cache_.truncate(tokens)) return false;
  ids_.resize(static_cast<size_t>(tokens));
  prompt_tokens_ = std::min(prompt_tokens_, tokens);
  if (tokens == 0) weights_version_ = engine_->model().weights_version();
  predicted_ = std::min(predicted_, tokens);
  return true;
}

int64_t Session::recall(std::span<const int32_t> prompt) {
  PrefixCache* prefixes = engine_->prefixes();
  if (!prefixes || length() > 0 || prompt.empty()) return 0;
  weights_version_ = engine_->model().weights_version();
  const auto most = std::min(prompt.size() - 1, static_cast<size_t>(capacity()));
  cache_.borrow(prefixes->find(scope_, prompt.first(most)));
  ids_.assign(prompt.begin(), prompt.begin() + length());
  prompt_tokens_ = predicted_ = length();
  return length();
}

void Session::remember() {
  PrefixCache* prefixes = engine_->prefixes();
  if (!prefixes || weights_version_ != engine_->model().weights_version()) return;
  const auto pages = static_cast<size_t>(prompt_tokens_ / ops::kPageRows);
  prefixes->insert(scope_, std::span(ids_).first(pages * static_cast<size_t>(ops::kPageRows)),
                   cache_.pages().first(pages));
}

}  // namespace birkhoff::infer
