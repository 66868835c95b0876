// The tokenizer of a run: where it comes from, what it asks of the model's settings, and its copy in the run's
// directory.
#pragma once
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "data/token_shard.h"
#include "train/train_config.h"

namespace birkhoff::train {

// How the data of a run becomes tokens; nothing when bytes are the tokens.
std::optional<data::Tokenization> run_tokenization(std::shared_ptr<const text::Tokenizer> tokenizer,
                                                   const RunConfig& config, const std::string& cache, int threads);

// The tokenizer of --tokenizer. Throws Error for a single file: a run needs all files of the directory.
std::shared_ptr<const text::Tokenizer> open_tokenizer(const std::string& directory);

// vocab_size in `base` grows to what the tokenizer needs, unless --set names it.
void fit_vocabulary(const text::Tokenizer* tokenizer, nlohmann::json& base, const std::vector<std::string>& overrides);
// Throws Error when the model has fewer tokens than the tokenizer (or than the 256 bytes when it is nullptr), or
// fim_rate without a tokenizer.
void check_vocabulary(const text::Tokenizer* tokenizer, const RunConfig& config);

// Copies the tokenizer's files into the run's directory: from then on the run depends on nothing outside.
void copy_tokenizer(const text::Tokenizer& tokenizer, const std::string& run);

}  // namespace birkhoff::train
