// Conversations as token batches for fine-tuning: .jsonl files with `messages` (and `tools`, `options`) a line. The
// model learns its own turns and the tokens that end them; everything else is read only. Several conversations share a
// row; attention and positions restart where one begins.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "data/batch.h"
#include "text/chat/chat_format.h"
#include "text/tokenizer/tokenizer.h"

namespace birkhoff::data {

struct ChatCounts {
  int64_t conversations = 0, turns = 0, samples = 0, rows = 0, tokens = 0, learnt_tokens = 0;
  int64_t refused = 0;                           // conversations that the format does not take
  int64_t rewritten = 0, without_end = 0;        // turns: see text/chat/training_sample.h
  int64_t cut = 0, cut_tokens = 0, dropped = 0;  // samples longer than a row; samples with nothing left to learn
  std::string first_refusal;
};

// Do the files behind these arguments of --data hold conversations: .jsonl whose first line has messages? Throws Error
// naming files: some do and some do not; conversations with a weight.
bool are_conversations(const std::vector<std::string>& arguments);

class ChatCorpus final : public BatchSource {
 public:
  // training, validation: a .jsonl file, or a folder of them. Without validation files the last 5 % of the
  // conversations of every file (at least one) validate. Throws Error with file and line: not JSON, no messages; with
  // the files: nothing to learn. Without training files there is a validation part alone.
  ChatCorpus(const std::vector<std::string>& training, const std::vector<std::string>& validation,
             std::shared_ptr<const text::Tokenizer> tokenizer, const text::chat::ChatFormat& format, int64_t seq_len,
             uint64_t seed);

  // Is it a .jsonl file whose first line has messages?
  static bool is_chat_file(const std::string& path);

  Batch training_batch(int64_t step, int64_t batch_size, int64_t first_row, int64_t rows) const override;
  std::vector<Batch> validation_batches(int64_t rows, int64_t limit) const override;
  const ChatCounts& counts() const { return counts_; }  // of the training part
  // What was read, cut and dropped, in a few lines.
  std::string describe() const;

 private:
  struct Sample {
    std::vector<int32_t> ids;
    std::vector<char> learn;  // is token i to be predicted?
  };
  struct Part {
    std::vector<Sample> samples;
    std::vector<std::vector<size_t>> rows;  // samples of each
  };
  std::vector<std::vector<Sample>> read_file(const std::string& path, const text::chat::ChatFormat& format,
                                             ChatCounts& counts) const;
  void add(Part& part, std::vector<Sample> conversation, ChatCounts& counts) const;
  void pack(Part& part, ChatCounts& counts) const;
  void append_row(const Part& part, size_t row, Batch& b) const;

  std::shared_ptr<const text::Tokenizer> tokenizer_;
  int64_t seq_len_;
  uint64_t seed_;
  Part training_, validation_;
  ChatCounts counts_, held_back_;
};

}  // namespace birkhoff::data
