#include "text/tokenizer/bpe_trainer.h"

#include <algorithm>
#include <queue>
#include <unordered_set>

#include "core/error.h"
#include "text/tokenizer/byte_symbols.h"
#include "text/tokenizer/pre_tokenizer.h"
#include "text/tokenizer/tokenizer.h"
#include "text/unicode/utf8.h"

namespace birkhoff::text {
namespace {

using Pair = uint64_t;  // left id * 2^32 + right id: the order of pairs is that of numbers
Pair pair_of(int32_t left, int32_t right) {
  return static_cast<Pair>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

struct PairHash {
  size_t operator()(Pair p) const { return (p ^ p >> 29) * 0x9E3779B97F4A7C15u >> 8; }
};

// A word as ids, shrinking in place.
struct Word {
  std::vector<int32_t> ids;
  int64_t count = 0;
};

class Trainer {
 public:
  Trainer(const WordCounts& words, const std::vector<std::string>& specials) {
    for (const auto& s : specials) add_token(s);
    std::vector<char32_t> alphabet(byte_symbols().begin(), byte_symbols().end());
    std::sort(alphabet.begin(), alphabet.end());
    int32_t byte_ids[256];
    for (const char32_t c : alphabet) {
      std::string s;
      append_char(c, s);
      byte_ids[symbol_byte(c)] = add_token(s);
    }
    words_.reserve(words.size());
    for (const auto& [bytes, count] : words) {
      Word w;
      w.count = count;
      for (const char b : bytes) w.ids.push_back(byte_ids[static_cast<unsigned char>(b)]);
      words_.push_back(std::move(w));
    }
    for (size_t i = 0; i < words_.size(); ++i)
      for (size_t k = 0; k + 1 < words_[i].ids.size(); ++k)
        change(pair_of(words_[i].ids[k], words_[i].ids[k + 1]), words_[i].count, static_cast<uint32_t>(i));
    for (const auto& [pair, info] : pairs_) queue_.push({info.count, pair});
  }

  TrainedBpe run(int64_t vocab) {
    while (static_cast<int64_t>(result_.tokens.size()) < vocab && !queue_.empty()) {
      const Candidate top = queue_.top();
      queue_.pop();
      Info& info = pairs_[top.pair];
      if (info.count != top.count) {  // it was merged into others since
        if (info.count > 0) queue_.push({info.count, top.pair});
        continue;
      }
      if (top.count < 1) break;
      merge(top.pair, std::exchange(info.places, {}));
    }
    return std::move(result_);
  }

 private:
  struct Info {
    int64_t count = 0;
    std::vector<uint32_t> places;  // words that hold the pair, or did
  };
  struct Candidate {
    int64_t count;
    Pair pair;
    bool operator<(const Candidate& o) const { return count != o.count ? count < o.count : pair > o.pair; }
  };

  int32_t add_token(const std::string& token) {
    const auto [at, fresh] = ids_.emplace(token, static_cast<int32_t>(result_.tokens.size()));
    if (fresh) result_.tokens.push_back(token);
    return at->second;
  }

  void change(Pair pair, int64_t by, uint32_t word) {
    Info& info = pairs_[pair];
    info.count += by;
    if (by > 0 && (info.places.empty() || info.places.back() != word)) info.places.push_back(word);
  }

  void merge(Pair pair, const std::vector<uint32_t>& places) {
    const auto left = static_cast<int32_t>(pair >> 32), right = static_cast<int32_t>(pair & UINT32_MAX);
    const int32_t id =
        add_token(result_.tokens[static_cast<size_t>(left)] + result_.tokens[static_cast<size_t>(right)]);
    result_.merges.emplace_back(left, right);
    fresh_.clear();
    for (const uint32_t w : places) merge_word(w, left, right, id);
    std::sort(fresh_.begin(), fresh_.end());
    fresh_.erase(std::unique(fresh_.begin(), fresh_.end()), fresh_.end());
    for (const Pair p : fresh_)
      if (const int64_t count = pairs_[p].count; count > 0) queue_.push({count, p});
  }

  // Left to right; the pairs beside a merge are counted down and up as each is found. The merged pair itself is not
  // counted down: it never comes up again.
  void merge_word(uint32_t index, int32_t left, int32_t right, int32_t id) {
    Word& w = words_[index];
    std::vector<int32_t>& ids = w.ids;
    size_t out = 0;
    for (size_t i = 0; i < ids.size(); ++out) {
      if (ids[i] != left || i + 1 == ids.size() || ids[i + 1] != right) {
        ids[out] = ids[i++];
        continue;
      }
      if (out > 0) {
        change(pair_of(ids[out - 1], left), -w.count, index);
        grow(pair_of(ids[out - 1], id), w.count, index);
      }
      i += 2;
      if (i < ids.size()) {
        change(pair_of(right, ids[i]), -w.count, index);
        grow(pair_of(id, ids[i]), w.count, index);
      }
      ids[out] = id;
    }
    ids.resize(out);
  }

  void grow(Pair pair, int64_t by, uint32_t word) {
    change(pair, by, word);
    fresh_.push_back(pair);
  }

  std::vector<Word> words_;
  std::unordered_map<Pair, Info, PairHash> pairs_;
  std::priority_queue<Candidate> queue_;
  std::unordered_map<std::string, int32_t> ids_;
  std::vector<Pair> fresh_;  // pairs that a merge brought about
  TrainedBpe result_;
};

}  // namespace

TrainedBpe train_bpe(const WordCounts& words, int64_t vocab, const std::vector<std::string>& specials) {
  const auto least = static_cast<int64_t>(256 + specials.size());
  if (vocab < least)
    throw Error("train-tokenizer", "a vocabulary of " + std::to_string(vocab) + " is too small: 256 bytes and " +
                                       std::to_string(specials.size()) + " special tokens need " +
                                       std::to_string(least));
  if (std::unordered_set<std::string>(specials.begin(), specials.end()).size() != specials.size())
    throw Error("train-tokenizer", "a special token is given twice");
  for (const std::string& s : specials) {
    if (s.empty())
      throw Error("train-tokenizer", "a special token is empty", "leave the empty --special, --bos or --eos out");
    check_text(s);
    const char* p = s.data();
    const int byte = symbol_byte(next_char(p));
    if (p == s.data() + s.size() && byte >= 0)
      throw Error("train-tokenizer",
                  "the special token \"" + s + "\" is how the vocabulary writes byte " + std::to_string(byte),
                  "take a longer one, such as <" + s + ">");
  }
  return Trainer(words, specials).run(vocab);
}

struct WordCounter::Stages {
  PreTokenizerStages read;
  Pieces pieces;
};

WordCounter::WordCounter(const nlohmann::json& pre_tokenizer) : stages_(std::make_unique<Stages>()) {
  stages_->read = read_pre_tokenizer(pre_tokenizer);
  BK_CHECK(stages_->read.byte_level);
}
WordCounter::~WordCounter() = default;

void WordCounter::add(std::string_view document) {
  check_text(document);
  Pieces& p = stages_->pieces;
  p.reset(document, true);
  for (const auto& stage : stages_->read.stages) stage->apply(p);
  std::string key;
  for (const Span s : p.spans) {
    key.assign(p.view(s));
    ++counts_[key];
  }
}

}  // namespace birkhoff::text
