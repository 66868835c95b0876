#include "infer/mtp_draft.h"

#include <algorithm>

namespace birkhoff::infer {

// Rows of prediction modules of several texts.
class MtpPass {
 public:
  explicit MtpPass(const Engine& engine) : engine_(engine), modules_(engine.caches().predictors()) {}

  void read_prompts(std::span<Session* const> sessions) {
    std::vector<Text> texts;
    for (Session* s : sessions) texts.push_back(lacking(*s, mla_form(engine_, TokenRole::prompt)));
    read(texts);
  }

  // What is lacking and the next token go through all modules, each token of a draft through the one that follows.
  void draft(std::span<MtpDraft> drafts) {
    std::vector<Text> texts;
    for (MtpDraft& d : drafts) {
      Session& s = *d.session;
      s.cache_.make_room(static_cast<int64_t>(d.most), s.predicted_);
      if (s.predicted_ > s.length()) s.predicted_ = s.length();
      texts.push_back(lacking(s, mla_form(engine_, TokenRole::generated)));
      texts.back().ids.push_back(d.next);
      texts.back().draft = &d;
      d.ids.clear();
    }
    read(texts);
    for (MtpDraft& d : drafts) d.session->ahead_ = d.next;
    for (size_t step = 1;; ++step) {
      std::vector<Piece> pieces;
      for (Text& t : texts)
        if (t.draft->most > step) pieces.push_back({&t, t.session->length() + static_cast<int64_t>(step), last_id(t)});
      if (pieces.empty()) return;
      run(std::min(step, modules_ - 1), step, pieces);
    }
  }

 private:
  struct Text {
    Session* session;
    layers::MlaForm form;
    std::vector<int32_t> ids;  // from the first row on that is lacking
    MtpDraft* draft = nullptr;
  };
  struct Piece {
    Text* text;
    int64_t past;  // its first row
    std::span<const int32_t> ids;
    bool ends = true;  // with the text's last id
  };

  static Text lacking(Session& s, layers::MlaForm form) {
    return {&s, form, std::vector<int32_t>(s.ids_.begin() + std::min(s.predicted_, s.length()), s.ids_.end())};
  }
  static std::span<const int32_t> last_id(const Text& t) { return std::span(t.draft->ids).last(1); }

  // As many passes as they take.
  void read(std::span<Text> texts) {
    std::vector<Piece> pieces;
    int64_t left = Engine::kPassTokens;
    const auto run_all = [&] {
      for (size_t k = 0; k < modules_ && !pieces.empty(); ++k) run(k, 0, pieces);
      pieces.clear();
      left = Engine::kPassTokens;
    };
    for (Text& t : texts) {
      Session& s = *t.session;
      for (std::span<const int32_t> ids = t.ids; !ids.empty();) {
        const auto some = ids.first(std::min(ids.size(), static_cast<size_t>(left)));
        ids = ids.subspan(some.size());
        pieces.push_back({&t, s.predicted_, some, ids.empty()});
        s.predicted_ += static_cast<int64_t>(some.size());
        left -= static_cast<int64_t>(some.size());
        if (left == 0) run_all();
      }
    }
    run_all();
  }

  // Module k (from 0) over the pieces, which end texts of `step` drafted ids.
  void run(size_t k, size_t step, std::span<const Piece> pieces) {
    model::CachedTokens places;
    std::vector<int32_t> ids;
    std::vector<int64_t> ends;
    std::vector<const Piece*> ended;
    for (const Piece& p : pieces) {
      places.add(p.text->session->cache_, p.past, static_cast<int64_t>(p.ids.size()), p.text->form,
                 static_cast<int64_t>(k + 1));
      ids.insert(ids.end(), p.ids.begin(), p.ids.end());
      if (!p.ends || !p.text->draft || (step == 0 && k > 0)) continue;
      ends.push_back(places.tokens() - 1);
      ended.push_back(&p);
    }
    const model::MtpTape& tape =
        engine_.session_pass().predict(engine_.exec(), engine_.model(), k, ids, places.context(), engine_.caches());
    if (k + 1 == modules_) stand_in(tape, step, ended, ends);
    engine_.session_logits(ends, [&](size_t i, std::span<const float> logits) {
      ended[i]->text->draft->ids.push_back(
          static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    });
  }

  // The last module's own rows, in front of the tokens that it goes on with, for those that it reads: the model, or the
  // module before, writes over them.
  void stand_in(const model::MtpTape& tape, size_t step, std::span<const Piece* const> pieces,
                std::span<const int64_t> rows) {
    const CMat source = model::mtp_source(engine_.model(), tape.stack, tape.hidden);
    for (size_t i = 0; i < pieces.size(); ++i) {
      const Piece& p = *pieces[i];
      if (p.text->draft->most == step + 1) continue;
      const int64_t last = p.past + static_cast<int64_t>(p.ids.size()) - 1;
      engine_.caches()
          .mtp_source(modules_ - 1)
          .write(engine_.exec(), source.row_block(rows[i], 1), p.text->session->cache_.pages(), last);
    }
  }

  const Engine& engine_;
  size_t modules_;
};

void draft_by_mtp(const Engine& engine, std::span<MtpDraft> drafts) {
  BK_CHECK_LE(static_cast<int64_t>(drafts.size()), Engine::kPassTokens);
  MtpPass(engine).draft(drafts);
}

void read_prompts_for_mtp(const Engine& engine, std::span<Session* const> sessions) {
  if (engine.caches().predictors() > 0) MtpPass(engine).read_prompts(sessions);
}

}  // namespace birkhoff::infer
