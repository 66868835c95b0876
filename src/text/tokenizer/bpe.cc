#include "text/tokenizer/bpe.h"

#include <algorithm>

#include "core/error.h"
#include "text/tokenizer/byte_symbols.h"
#include "text/unicode/utf8.h"

namespace birkhoff::text {
namespace {

constexpr size_t kShort = 48;  // symbols up to which looking through all pairs beats a queue

std::string shown(std::string_view s) { return "\"" + std::string(s.substr(0, 60)) + "\""; }

int32_t required(const Vocabulary& v, std::string_view token, size_t rank) {
  const int32_t id = v.find(token);
  if (id < 0)
    throw Error("tokenizer", "merge " + std::to_string(rank) + " needs the token " + shown(token) +
                                 ", which is not in the vocabulary");
  return id;
}

}  // namespace

Bpe::Bpe(Vocabulary vocabulary, const std::vector<std::pair<std::string_view, std::string_view>>& merges,
         BpeOptions options, bool byte_level)
    : vocabulary_(std::move(vocabulary)),
      merges_(merges.size()),
      options_(std::move(options)),
      byte_level_(byte_level) {
  const size_t prefix = options_.continuing_subword_prefix.size();
  std::string joined;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    if (right.size() < prefix)
      throw Error("tokenizer",
                  "merge " + std::to_string(rank) + ": " + shown(right) + " is shorter than continuing_subword_prefix");
    joined.assign(left).append(right.substr(prefix));
    merges_.add(required(vocabulary_, left, rank), required(vocabulary_, right, rank),
                {static_cast<uint32_t>(rank), required(vocabulary_, joined, rank)});
  }
  plain_bytes_ = byte_level_ && options_.continuing_subword_prefix.empty() && options_.end_of_word_suffix.empty();
  for (size_t b = 0; b < 256; ++b) {
    byte_ids_[b] = vocabulary_.find(to_symbols(std::string(1, static_cast<char>(b))));
    const bool in_utf8 = b < 0xC0 || (b > 0xC1 && b < 0xF5);
    if (in_utf8 && byte_ids_[b] < 0) plain_bytes_ = false;
  }
}

void Bpe::encode(const Pieces& pieces, BpeScratch& s, std::vector<int32_t>& out) const {
  const char *text = pieces.text.data(), *end = text + pieces.text.size();
  for (const Span span : pieces.spans) {
    const std::string_view piece(text + span.begin, span.end - span.begin);
    if (piece.size() > WordCache::kMaxBytes) {
      encode_piece(piece, s, out);
      continue;
    }
    const WordCache::Key key = WordCache::key(piece.data(), piece.size(), end);
    if (s.cache.find(key, out)) continue;
    const size_t before = out.size();
    encode_piece(piece, s, out);
    s.cache.insert(key, {out.data() + before, out.size() - before});
  }
}

void Bpe::encode_piece(std::string_view piece, BpeScratch& s, std::vector<int32_t>& out) const {
  if (byte_level_ && (options_.ignore_merges || !plain_bytes_)) s.symbols = to_symbols(piece);
  const std::string_view symbols = byte_level_ ? std::string_view(s.symbols) : piece;
  if (options_.ignore_merges) {
    if (const int32_t id = vocabulary_.find(symbols); id >= 0) {
      out.push_back(id);
      return;
    }
  }
  s.ids.clear();
  if (plain_bytes_) {
    start_bytes(piece, s);
  } else {
    start_chars(symbols, s);
  }
  if (s.ids.size() > 1) s.ids.size() <= kShort ? merge_short(s) : merge_long(s);
  out.insert(out.end(), s.ids.begin(), s.ids.end());
}

void Bpe::start_bytes(std::string_view piece, BpeScratch& s) const {
  for (const char c : piece) s.ids.push_back(byte_ids_[static_cast<unsigned char>(c)]);
}

// The symbols of a piece before any merge. A pending unknown token is written only when a known character or the end
// follows: that is when the reference library writes it, even if bytes were written in between.
void Bpe::start_chars(std::string_view piece, BpeScratch& s) const {
  int pending = 0;  // unknown tokens not written yet: 0 or 1
  std::string symbol;
  for (const char *p = piece.data(), *end = p + piece.size(); p < end;) {
    const char* begin = p;
    next_char(p);
    symbol.clear();
    if (begin != piece.data()) symbol += options_.continuing_subword_prefix;
    symbol.append(begin, p);
    if (p == end) symbol += options_.end_of_word_suffix;
    const int32_t id = vocabulary_.find(symbol);
    if (id >= 0) {
      if (pending) s.ids.push_back(unknown_id());
      pending = 0;
      s.ids.push_back(id);
    } else if (!(options_.byte_fallback && push_fallback(symbol, s.ids)) && options_.unk_token) {
      if (pending && !options_.fuse_unk) s.ids.push_back(unknown_id());
      pending = 1;
      unknown_id();  // complains when there is none
    }
  }
  if (pending) s.ids.push_back(unknown_id());
}

bool Bpe::push_fallback(std::string_view symbol, std::vector<int32_t>& ids) const {
  const size_t before = ids.size();
  for (const char c : symbol) {
    constexpr char kHex[] = "0123456789ABCDEF";
    const auto b = static_cast<unsigned char>(c);
    const char token[] = {'<', '0', 'x', kHex[b >> 4], kHex[b & 15], '>'};
    const int32_t id = vocabulary_.find({token, sizeof token});
    if (id < 0) {
      ids.resize(before);
      return false;
    }
    ids.push_back(id);
  }
  return true;
}

int32_t Bpe::unknown_id() const {
  const int32_t id = vocabulary_.find(*options_.unk_token);
  if (id < 0)
    throw Error("tokenizer", "the text has a character without a token and unk_token " + shown(*options_.unk_token) +
                                 " is not in the vocabulary");
  return id;
}

void Bpe::merge_short(BpeScratch& s) const {
  int32_t ids[kShort], merged[kShort];
  uint32_t ranks[kShort];
  size_t n = s.ids.size();
  std::copy(s.ids.begin(), s.ids.end(), ids);
  const auto look_up = [&](size_t i) {
    const MergeTable::Merge m = merges_.find(ids[i], ids[i + 1]);
    ranks[i] = m.rank;
    merged[i] = m.id;
  };
  for (size_t i = 0; i + 1 < n; ++i) look_up(i);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i)
      if (ranks[i] < ranks[best]) best = i;
    if (ranks[best] == MergeTable::kNoRank) break;
    ids[best] = merged[best];
    for (size_t i = best + 1; i + 1 < n; ++i) {
      ids[i] = ids[i + 1];
      ranks[i] = ranks[i + 1];
      merged[i] = merged[i + 1];
    }
    --n;
    if (best > 0) look_up(best - 1);
    if (best + 1 < n) look_up(best);
  }
  s.ids.assign(ids, ids + n);
}

// A linked list of symbols and a queue of the pairs that merge.
void Bpe::merge_long(BpeScratch& s) const {
  const size_t n = s.ids.size();
  s.next.resize(n);
  s.previous.resize(n);
  s.ranks.resize(n);
  s.merged.resize(n);
  s.queue.clear();
  const auto look_up = [&](size_t i) {
    const MergeTable::Merge m = merges_.find(s.ids[i], s.ids[static_cast<size_t>(s.next[i])]);
    s.ranks[i] = m.rank;
    s.merged[i] = m.id;
    if (m.rank != MergeTable::kNoRank) s.queue.push(m.rank, static_cast<uint32_t>(i));
  };
  for (size_t i = 0; i < n; ++i) {
    s.previous[i] = static_cast<int32_t>(i) - 1;
    s.next[i] = i + 1 < n ? static_cast<int32_t>(i + 1) : -1;
    s.ranks[i] = MergeTable::kNoRank;
    if (i + 1 < n) look_up(i);
  }
  while (!s.queue.empty()) {
    const auto [rank, at] = s.queue.pop();
    if (s.ranks[at] != rank) continue;  // a pair that is no more
    const auto gone = static_cast<size_t>(s.next[at]);
    s.ids[at] = s.merged[at];
    s.ids[gone] = -1;
    s.ranks[at] = s.ranks[gone] = MergeTable::kNoRank;
    s.next[at] = s.next[gone];
    if (s.next[at] >= 0) {
      s.previous[static_cast<size_t>(s.next[at])] = static_cast<int32_t>(at);
      look_up(at);
    }
    if (s.previous[at] >= 0) look_up(static_cast<size_t>(s.previous[at]));
  }
  s.ids.erase(std::remove(s.ids.begin(), s.ids.end(), -1), s.ids.end());
}

}  // namespace birkhoff::text
