#include "text/tokenizer/json_tokenizer.h"

#include "core/error.h"
#include "text/tokenizer/growth.h"
#include "text/unicode/utf8.h"

namespace birkhoff::text {

// A scratch of the pool for as long as one text is encoded.
class JsonTokenizer::Lease {
 public:
  explicit Lease(const JsonTokenizer& t) : t_(t) {
    const std::lock_guard lock(t.mutex_);
    if (!t.free_.empty()) {
      scratch_ = std::move(t.free_.back());
      t.free_.pop_back();
    }
    if (!scratch_) scratch_ = std::make_unique<Scratch>();
  }
  ~Lease() {
    const std::lock_guard lock(t_.mutex_);
    t_.free_.push_back(std::move(scratch_));
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  Scratch& operator*() const { return *scratch_; }

 private:
  const JsonTokenizer& t_;
  std::unique_ptr<Scratch> scratch_;
};

JsonTokenizer::JsonTokenizer(Parts parts) : p_(std::move(parts)) {
  before_ = p_.affixes.before;
  after_ = p_.affixes.after;
}

void JsonTokenizer::encode(std::string_view text, std::vector<int32_t>& ids, Added added) const {
  check_text(text);
  const Lease lease(*this);
  Scratch& s = *lease;
  s.writable = output_limit(text.size());
  const AddedScope scope = added == Added::match ? AddedScope::all : AddedScope::letters;
  s.raw.clear();
  p_.added.find(text, false, scope, s.raw);
  size_t at = 0;
  for (const AddedTokens::Found& f : s.raw) {
    if (f.span.begin > at) encode_segment(text.substr(at, f.span.begin - at), at == 0, scope, s, ids);
    ids.push_back(f.token->id);
    at = f.span.end;
  }
  if (at < text.size()) encode_segment(text.substr(at), at == 0, scope, s, ids);
}

void JsonTokenizer::encode_parts(std::span<const Part> parts, std::vector<int32_t>& ids) const {
  const Lease lease(*this);
  Scratch& s = *lease;
  s.raw.clear();
  const std::string text = find_in_parts(parts, p_.added, s.raw);
  s.writable = output_limit(text.size());
  // Tokens of normalized text are looked for in a stretch of one rule; where rules meet, letters alone are safe.
  size_t first = 0, first_at = 0;  // the part that the stretch begins in; stretches come in order
  const auto scope_of = [&](size_t begin, size_t end) {
    while (first < parts.size() && first_at + parts[first].text.size() <= begin) first_at += parts[first++].text.size();
    for (size_t k = first, start = first_at; k < parts.size() && start < end; start += parts[k++].text.size())
      if (parts[k].added == Added::plain && !parts[k].text.empty()) return AddedScope::letters;
    return AddedScope::all;
  };
  const std::string_view whole = text;
  size_t at = 0;
  for (const AddedTokens::Found& f : s.raw) {
    if (f.span.begin > at)
      encode_segment(whole.substr(at, f.span.begin - at), at == 0, scope_of(at, f.span.begin), s, ids);
    ids.push_back(f.token->id);
    at = f.span.end;
  }
  if (at < whole.size()) encode_segment(whole.substr(at), at == 0, scope_of(at, whole.size()), s, ids);
}

void JsonTokenizer::encode_segment(std::string_view segment, bool at_start, AddedScope scope, Scratch& s,
                                   std::vector<int32_t>& ids) const {
  std::string changed;
  if (!p_.normalizers.empty()) {
    changed = segment;
    apply_all(p_.normalizers, changed, s.writable);
    s.writable -= changed.size();
    if (changed.size() > UINT32_MAX) throw Error("tokenizer", "the normalized text is over 4 GiB", "split it");
    segment = changed;
  }
  s.normalized.clear();
  p_.added.find(segment, true, scope, s.normalized);
  size_t at = 0;
  for (const AddedTokens::Found& f : s.normalized) {
    if (f.span.begin > at) encode_model(segment.substr(at, f.span.begin - at), at_start && at == 0, s, ids);
    ids.push_back(f.token->id);
    at = f.span.end;
  }
  if (at < segment.size()) encode_model(segment.substr(at), at_start && at == 0, s, ids);
}

void JsonTokenizer::encode_model(std::string_view text, bool at_start, Scratch& s, std::vector<int32_t>& ids) const {
  s.pieces.reset(text, at_start);
  for (const auto& stage : p_.pre_tokenizer.stages) stage->apply(s.pieces);
  p_.model->encode(s.pieces, s.bpe, ids);
}

std::string_view JsonTokenizer::token_view(int32_t id) const {
  if (const AddedToken* t = p_.added.by_id(id)) return t->decoded;
  return p_.model->vocabulary().has(id) ? p_.model->vocabulary().token(id) : std::string_view();
}

bool JsonTokenizer::append_bytes(int32_t id, std::string& bytes) const {
  if (!p_.decoder.byte_level) return false;
  append_symbol_bytes(token_view(id), bytes);
  return true;
}

std::string JsonTokenizer::decode(std::span<const int32_t> ids, bool skip_special) const {
  if (p_.decoder.byte_level) {
    std::string bytes;
    for (const int32_t id : ids)
      if (!skip_special || !is_special(id)) append_bytes(id, bytes);
    return first_invalid(bytes) == bytes.size() ? bytes : replace_invalid(bytes);
  }
  std::vector<std::string> tokens;
  for (const int32_t id : ids) {
    const std::string_view t = token_view(id);
    if (t.data() && (!skip_special || !is_special(id))) tokens.emplace_back(t);
  }
  size_t bytes = 0;
  for (const std::string& t : tokens) bytes += t.size();
  for (const auto& step : p_.decoder.steps) step->apply(tokens, output_limit(bytes));
  std::string out;
  for (size_t i = 0; i < tokens.size(); ++i) out += (p_.decoder.none && i ? " " : "") + tokens[i];
  return out;
}

int32_t JsonTokenizer::size() const { return std::max(p_.model->vocabulary().end(), p_.added.end()); }

std::optional<std::string> JsonTokenizer::token(int32_t id) const {
  const std::string_view t = token_view(id);
  return t.data() ? std::optional(std::string(t)) : std::nullopt;
}

std::optional<int32_t> JsonTokenizer::id(std::string_view token) const {
  int32_t id = p_.added.find(token);
  if (id < 0) id = p_.model->vocabulary().find(token);
  return id >= 0 ? std::optional(id) : std::nullopt;
}

bool JsonTokenizer::is_special(int32_t id) const {
  const AddedToken* t = p_.added.by_id(id);
  return t && t->special;
}

}  // namespace birkhoff::text
