// What all options have in common: how a number is read, what the environment may say, how help shows them.
#pragma once
#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

#include "infer/engine.h"
#include "infer/generation.h"

namespace birkhoff::apps {

// Values of an option that takes a number. Anything else is refused with what is allowed and what was given.
CLI::Validator whole_number(int64_t low, int64_t high);
CLI::Validator real_number(double low, double high);

// How the verbs that write draw their tokens.
void add_sampling(CLI::App& verb, infer::SamplerOptions& sampling, infer::LogitsOptions& logits);

// --draft and --draft-by.
struct DraftFlags {
  int64_t most = 0;
  std::string by = name_of(infer::DraftBy::ngram);
  void add(CLI::App& verb);
  // Opens the model with what drafts. Throws Error naming the flag.
  void apply(infer::EngineOptions& options) const;
  infer::DraftBy drafter() const;  // the same
};
// How much of it was right, on stderr; nothing where nothing was drafted.
void say_accepted(int64_t drafted, int64_t accepted);

// --weights, --head-weights, --cache and --stream of a verb that runs a model. Without the second the head has the
// format of the others, q8 beside q4.
struct WeightFlags {
  std::string matrices = "auto", head, cache;
  bool stream = false;
  void add(CLI::App& verb);          // all of them
  void add_formats(CLI::App& verb);  // the first two
  bool given() const { return matrices != "auto" || !head.empty(); }
  void apply(infer::EngineOptions& options) const;  // throws Error naming the flag
  model::WeightFormats formats() const;             // the same
};

// --cache-type, --cache-memory and --mla of a verb that runs a model in sessions.
struct CacheFlags {
  std::string type, mla = "auto";
  int64_t mib = 0;
  const CLI::Option* mla_flag = nullptr;
  void add(CLI::App& verb);
  void apply(infer::EngineOptions& options) const;  // throws Error naming the flag
};

// For all options of the verb that was called: numbers are read strictly, BIRKHOFF_<NAME> of the environment stands in
// for those that say how to work (docs/environment.md), and help promises no list where a flag takes one value.
void finish_options(CLI::App& verb);

// "BIRKHOFF_THREADS" when the complaint is about an option that has its value from there, else "".
std::string variable_behind(const CLI::App& verb, const std::string& complaint);

}  // namespace birkhoff::apps
