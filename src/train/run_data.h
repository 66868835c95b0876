// Where the batches of a run come from: documents, or conversations in a chat format, which then is the run's.
#pragma once
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "data/batch.h"
#include "text/chat/chat_format.h"
#include "text/tokenizer/tokenizer.h"
#include "train/run_training.h"
#include "train/train_config.h"

namespace birkhoff::train {

struct RunData {
  std::unique_ptr<data::BatchSource> batches;
  std::optional<text::chat::ChatFormat> format;   // of conversations
  std::string notes;                              // what was read, cut and dropped, in lines; "" for documents
  nlohmann::json counts;                          // the same for run.json; null for documents
  std::vector<std::string> training, validation;  // PATH[@WEIGHT], as given
  nlohmann::json files;                           // describe_files of them
};

// Conversations when the files of o.data and o.validation are .jsonl with `messages` (all of them, or Error), else
// documents. format_directory: whose chat format renders conversations, unless o.chat_template or o.chat_encoder names
// another. Throws Error: conversations without a tokenizer, with a weight, with a format whose end token the tokenizer
// lacks; what data::Corpus and data::ChatCorpus refuse.
RunData open_run_data(const TrainOptions& o, const RunConfig& c,
                      const std::shared_ptr<const text::Tokenizer>& tokenizer, const std::string& format_directory);

// The files behind the paths, as run.json holds them: [{"file", "bytes", "xxh64"}], every file once. Throws Error.
nlohmann::json describe_files(const std::vector<std::string>& training, const std::vector<std::string>& validation);

// Makes the format that of the run: a template goes beside the tokenizer's files in its directory, an encoder that does
// not follow from the model's type into its config.json as chat_encoder.
void keep_chat_format(const TrainOptions& o, const RunData& data, const std::string& run, RunConfig& c);

}  // namespace birkhoff::train
