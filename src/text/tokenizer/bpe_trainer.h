// Learns a byte-level BPE vocabulary (Sennrich et al., 2016): the adjacent pair that occurs most often becomes a token,
// the pair with the lower ids among equals, until the vocabulary is full. Counts are kept as in the `tokenizers`
// library's trainer, so the merges are the same.
#pragma once
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace birkhoff::text {

// Occurrences of every distinct piece (bytes) of the training text.
using WordCounts = std::unordered_map<std::string, int64_t>;

struct TrainedBpe {
  std::vector<std::string>
      tokens;  // by id, in byte symbols but for the special ones: special tokens, the 256 byte symbols, merges
  std::vector<std::pair<int32_t, int32_t>> merges;  // ids, in order of rank
};

// The tokens of `vocab` ids, fewer when no pair is left. Throws Error when vocab is below 256 + specials, and for
// specials that are equal, empty, or one of the 256 byte symbols.
TrainedBpe train_bpe(const WordCounts& words, int64_t vocab, const std::vector<std::string>& specials);

// Adds the pieces of a document to counts. pre_tokenizer: a "pre_tokenizer" entry that ends in ByteLevel.
class WordCounter {
 public:
  explicit WordCounter(const nlohmann::json& pre_tokenizer);
  ~WordCounter();
  void add(std::string_view document);  // UTF-8; throws Error with the place of what is not
  const WordCounts& counts() const { return counts_; }

 private:
  struct Stages;
  std::unique_ptr<Stages> stages_;
  WordCounts counts_;
};

// The "pre_tokenizer" entry of a family: v3, llm, coder, gpt2. Throws Error for another name, with the known ones.
nlohmann::json pattern_pre_tokenizer(const std::string& name);

// A directory that this program and transformers open: tokenizer.json and tokenizer_config.json. bos, eos: specials or
// "".
void write_tokenizer(const std::string& directory, const TrainedBpe& bpe, const std::vector<std::string>& specials,
                     const nlohmann::json& pre_tokenizer, const std::string& bos, const std::string& eos);

}  // namespace birkhoff::text
