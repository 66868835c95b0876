// `birkhoff train`: what a run is started with, and the run.
#pragma once
#include <atomic>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace birkhoff::train {

struct TrainOptions {
  nlohmann::json settings_base;               // preset or file
  std::vector<std::string> settings_set;      // key=value, over the base
  std::vector<std::string> data, validation;  // PATH[@WEIGHT]
  std::string tokenizer;                      // directory; "": bytes are tokens, or what the resumed run has
  // Format of conversations: a file, or "v3.2", "v4"; both "": the directory's own.
  std::string chat_template, chat_encoder;
  std::string token_cache;  // directory where tokenized data is kept, "" keeps none
  std::string out;
  std::string init;  // a run, checkpoint or model directory whose weights the run starts from
  bool resume = false;
  int threads = 1;
  std::string command_line;
  bool terminal = false;  // progress bar on stderr
  bool quiet = false;
};
// Returns 0, or 130 when `stop` was raised and the run was saved. Throws Error.
int run_training(const TrainOptions& options, const std::atomic<bool>& stop);

}  // namespace birkhoff::train
