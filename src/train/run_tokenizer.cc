#include "train/run_tokenizer.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"
#include "io/atomic_file.h"
#include "io/user_files.h"
#include "model/config/json_fields.h"
#include "text/tokenizer/fim.h"

namespace birkhoff::train {

namespace fs = std::filesystem;

std::optional<data::Tokenization> run_tokenization(std::shared_ptr<const text::Tokenizer> tokenizer,
                                                   const RunConfig& config, const std::string& cache, int threads) {
  if (!tokenizer) return std::nullopt;
  const auto note = [told = false](const std::string& reason) mutable {
    if (!std::exchange(told, true))
      std::fprintf(stderr, "birkhoff: tokenized data is not kept for the next run: %s\n", reason.c_str());
  };
  return data::Tokenization{
      std::move(tokenizer), cache, config.train.fim_rate, static_cast<uint64_t>(config.train.seed), threads, note};
}

std::shared_ptr<const text::Tokenizer> open_tokenizer(const std::string& directory) {
  if (io::is_file(directory))
    throw Error("train", "--tokenizer " + directory + ": is a file, a run copies the directory of a tokenizer",
                "give the directory that it lies in", ExitCode::usage);
  return text::Tokenizer::open(directory);
}

void fit_vocabulary(const text::Tokenizer* tokenizer, nlohmann::json& base, const std::vector<std::string>& overrides) {
  const bool asked = std::any_of(overrides.begin(), overrides.end(),
                                 [](const std::string& s) { return s.rfind("vocab_size=", 0) == 0; });
  if (!tokenizer || asked) return;
  if (base.is_null()) base = nlohmann::json::object();
  if (model::field_or<int64_t>(base, "vocab_size", 0) < tokenizer->size()) base["vocab_size"] = tokenizer->size();
}

void check_vocabulary(const text::Tokenizer* tokenizer, const RunConfig& config) {
  const int64_t have = config.model.vocab_size;
  if (!tokenizer) {
    if (have < 256)
      throw Error("train",
                  "vocab_size: " + std::to_string(have) + " is less than the 256 byte values that are the tokens",
                  "set vocab_size=256");
    if (config.train.fim_rate > 0)
      throw Error("train", "fim_rate: bytes have no tokens for filling in the middle", "give --tokenizer DIR");
    return;
  }
  if (have < tokenizer->size())
    throw Error("train",
                "vocab_size: " + std::to_string(have) + " is less than the " + std::to_string(tokenizer->size()) +
                    " tokens of the tokenizer",
                "set vocab_size=" + std::to_string(tokenizer->size()));
  if (config.train.fim_rate > 0) text::find_fim_tokens(*tokenizer);
}

void copy_tokenizer(const text::Tokenizer& tokenizer, const std::string& run) {
  for (const std::string& file : tokenizer.files())
    io::copy_file(file, (fs::path(run) / fs::path(file).filename()).string());
}

}  // namespace birkhoff::train
