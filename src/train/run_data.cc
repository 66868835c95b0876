#include "train/run_data.h"

#include <cstdio>
#include <set>

#include "core/error.h"
#include "data/chat_corpus.h"
#include "data/corpus.h"
#include "data/documents.h"
#include "io/atomic_file.h"
#include "io/manifest.h"
#include "io/user_files.h"
#include "train/run_tokenizer.h"

namespace birkhoff::train {
namespace {

using text::chat::ChatFormat;

ChatFormat open_format(const TrainOptions& o, const std::string& directory) {
  if (!o.chat_encoder.empty()) return ChatFormat::native(o.chat_encoder);
  try {
    return ChatFormat::open(directory, o.chat_template);
  } catch (const Error& e) {
    if (!o.chat_template.empty()) throw;
    throw Error(e.where(), e.said(), "give --template FILE or --encoder v3.2|v4", e.code());
  }
}

nlohmann::json to_json(const data::ChatCounts& c) {
  return {{"conversations", c.conversations},
          {"turns", c.turns},
          {"samples", c.samples},
          {"rows", c.rows},
          {"tokens", c.tokens},
          {"learnt_tokens", c.learnt_tokens},
          {"refused", c.refused},
          {"rewritten", c.rewritten},
          {"without_end", c.without_end},
          {"cut", c.cut},
          {"cut_tokens", c.cut_tokens},
          {"dropped", c.dropped}};
}

}  // namespace

nlohmann::json describe_files(const std::vector<std::string>& training, const std::vector<std::string>& validation) {
  std::set<std::string> names;
  for (const auto* list : {&training, &validation})
    for (const std::string& argument : *list)
      for (const std::string& file : data::document_files(data::split_weight(argument).first)) names.insert(file);
  nlohmann::json files = nlohmann::json::array();
  for (const std::string& name : names) {
    char checksum[17];
    std::snprintf(checksum, sizeof checksum, "%016llx", static_cast<unsigned long long>(io::file_checksum(name)));
    files.push_back({{"file", name}, {"bytes", io::file_size(name)}, {"xxh64", checksum}});
  }
  return files;
}

RunData open_run_data(const TrainOptions& o, const RunConfig& c,
                      const std::shared_ptr<const text::Tokenizer>& tokenizer, const std::string& format_directory) {
  RunData out;
  out.training = o.data;
  out.validation = o.validation;
  const auto seed = static_cast<uint64_t>(c.train.seed);
  std::vector<std::string> all = o.data;
  all.insert(all.end(), o.validation.begin(), o.validation.end());
  if (!data::are_conversations(all)) {
    if (!o.chat_template.empty() || !o.chat_encoder.empty())
      throw Error("train", "a chat format is given, but " + o.data.at(0) + " holds no conversations",
                  "--template and --encoder are for .jsonl files with \"messages\"", ExitCode::usage);
    const std::optional<data::Tokenization> tokens = run_tokenization(tokenizer, c, o.token_cache, o.threads);
    out.batches =
        std::make_unique<data::Corpus>(o.data, o.validation, c.train.seq_len, seed, tokens ? &*tokens : nullptr);
    out.files = describe_files(o.data, o.validation);
    return out;
  }
  if (!tokenizer)
    throw Error("data", o.data.at(0) + ": conversations need a tokenizer",
                "give --tokenizer DIR, or --init with a model that has one");
  if (c.train.fim_rate > 0)
    throw Error("train",
                "fim_rate: conversations are not rearranged for filling in the middle, it is " +
                    std::to_string(c.train.fim_rate),
                "set fim_rate=0");
  out.format = open_format(o, format_directory);
  const std::string& end = out.format->eos();
  if (!end.empty() && !tokenizer->id(end))
    throw Error("train", "the chat format ends turns with " + end + ", which is no token of the tokenizer",
                "the format and the tokenizer do not belong together");
  auto corpus = std::make_unique<data::ChatCorpus>(o.data, o.validation, tokenizer, *out.format, c.train.seq_len, seed);
  out.notes = corpus->describe();
  out.counts = to_json(corpus->counts());
  out.batches = std::move(corpus);
  out.files = describe_files(o.data, o.validation);
  return out;
}

void keep_chat_format(const TrainOptions& o, const RunData& data, const std::string& run, RunConfig& c) {
  if (!data.format) return;
  const std::string own = ChatFormat::encoder_of_type(c.model.model_type);
  const bool native = data.format->encoder() != ChatFormat::Encoder::none;
  nlohmann::json keys = nlohmann::json::parse(c.model.unknown_keys);
  keys.erase("chat_encoder");  // what the model of --init had
  if (native && (own != data.format->parser() || !o.chat_encoder.empty())) keys["chat_encoder"] = data.format->parser();
  c.model.unknown_keys = keys.dump();
  if (!o.chat_template.empty()) io::copy_file(o.chat_template, run + "/chat_template.jinja");
}

}  // namespace birkhoff::train
