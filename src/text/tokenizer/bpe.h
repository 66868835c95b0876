// Byte-pair encoding: a piece becomes its smallest symbols, then the adjacent pair with the lowest rank (leftmost among
// equals) is merged until none is left (Sennrich et al., 2016; the model "BPE" of tokenizer.json).
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/tokenizer/merge_queue.h"
#include "text/tokenizer/merge_table.h"
#include "text/tokenizer/pieces.h"
#include "text/tokenizer/vocabulary.h"
#include "text/tokenizer/word_cache.h"

namespace birkhoff::text {

struct BpeOptions {
  std::optional<std::string> unk_token;
  std::string continuing_subword_prefix, end_of_word_suffix;
  bool fuse_unk = false, byte_fallback = false, ignore_merges = false;
};

// Memory of one encoding at a time.
struct BpeScratch {
  WordCache cache;
  std::vector<int32_t> ids, merged, previous, next;
  std::vector<uint32_t> ranks;
  MergeQueue queue;
  std::string symbols;
};

class Bpe {
 public:
  // merges: pairs of tokens in order of rank. byte_level: pieces are bytes, and the vocabulary is written in byte
  // symbols. Throws Error: a merge of tokens that are not in the vocabulary.
  Bpe(Vocabulary vocabulary, const std::vector<std::pair<std::string_view, std::string_view>>& merges,
      BpeOptions options, bool byte_level);

  const Vocabulary& vocabulary() const { return vocabulary_; }
  // Appends the ids of every piece. Thread-safe with a scratch of its own. A character that has no token, no bytes and
  // no unk_token vanishes, as in the reference library. Throws Error when unk_token is needed and not in the
  // vocabulary.
  void encode(const Pieces& pieces, BpeScratch& scratch, std::vector<int32_t>& out) const;

 private:
  void encode_piece(std::string_view piece, BpeScratch& s, std::vector<int32_t>& out) const;
  void start_bytes(std::string_view piece, BpeScratch& s) const;
  void start_chars(std::string_view piece, BpeScratch& s) const;
  bool push_fallback(std::string_view symbol, std::vector<int32_t>& ids) const;
  int32_t unknown_id() const;
  void merge_short(BpeScratch& s) const;
  void merge_long(BpeScratch& s) const;

  Vocabulary vocabulary_;
  MergeTable merges_;
  BpeOptions options_;
  bool byte_level_, plain_bytes_;  // plain_bytes_: every byte that occurs in UTF-8 starts as byte_ids_ says
  std::array<int32_t, 256> byte_ids_;
};

}  // namespace birkhoff::text
