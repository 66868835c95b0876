#include <algorithm>
#include <chrono>
#include <cstdio>

#include "apps/flags.h"
#include "apps/verbs.h"
#include "core/error.h"
#include "data/documents.h"
#include "io/user_files.h"
#include "text/tokenizer/bpe_trainer.h"

namespace birkhoff::apps {
namespace {

struct TrainTokenizerFlags {
  int64_t vocab = 0;
  std::string out, pattern = "v3", bos, eos;
  std::vector<std::string> special, data;
  bool lines = false;
};

const char* const kBeginNames[] = {"<｜begin▁of▁sentence｜>", "<s>", "<bos>", "<|begin_of_text|>"};
const char* const kEndNames[] = {"<｜end▁of▁sentence｜>", "</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>"};

// The role of a special token: as told, else by its name.
template <size_t N>
std::string role(const std::string& told, const std::vector<std::string>& special, const char* const (&names)[N]) {
  if (!told.empty()) return told;
  for (const std::string& s : special)
    if (std::find(std::begin(names), std::end(names), s) != std::end(names)) return s;
  return "";
}

void add_document(text::WordCounter& counter, std::string_view text, const std::string& name, bool lines) {
  try {
    for (size_t at = 0; at < text.size();) {
      const size_t end = lines ? std::min(text.find('\n', at), text.size() - 1) + 1 : text.size();
      counter.add(text.substr(at, end - at));
      at = end;
    }
  } catch (const Error& e) {
    throw Error("train-tokenizer", name + ": " + e.what(), e.hint(), e.code());
  }
}

int train_tokenizer(const TrainTokenizerFlags& f) {
  if (io::exists(f.out) && !(io::is_directory(f.out) && io::list_directory(f.out).empty()))
    throw Error("train-tokenizer", f.out + ": is there already", "give a new directory");
  std::vector<std::string> special = f.special;
  for (const std::string& s : {f.bos, f.eos})
    if (!s.empty() && std::find(special.begin(), special.end(), s) == special.end()) special.push_back(s);
  const nlohmann::json pattern = text::pattern_pre_tokenizer(f.pattern);
  const auto start = std::chrono::steady_clock::now();
  text::WordCounter counter(pattern);
  int64_t documents = 0;
  for (const std::string& path : f.data) {
    data::for_each_document(path, [&](std::string_view text, const std::string& name) {
      add_document(counter, text, name, f.lines);
      ++documents;
    });
  }
  say_unread_folders(f.data);
  if (counter.counts().empty()) throw Error("train-tokenizer", "no text in the data", "give files that are not empty");
  const text::TrainedBpe bpe = text::train_bpe(counter.counts(), f.vocab, special);
  const std::string bos = role(f.bos, special, kBeginNames), eos = role(f.eos, special, kEndNames);
  text::write_tokenizer(f.out, bpe, special, pattern, bos, eos);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::fprintf(stderr, "birkhoff: %zu tokens, %zu merges from %zu different words of %lld documents in %.2f s\n",
               bpe.tokens.size(), bpe.merges.size(), counter.counts().size(), static_cast<long long>(documents),
               seconds);
  if (static_cast<int64_t>(bpe.tokens.size()) < f.vocab)
    std::fprintf(stderr, "birkhoff: the data has no more pairs, the vocabulary is smaller than %lld\n",
                 static_cast<long long>(f.vocab));
  if (eos.empty()) std::fprintf(stderr, "birkhoff: no end token: training needs one between documents (--eos)\n");
  return 0;
}

}  // namespace

void add_train_tokenizer(CLI::App& app, Program& p) {
  auto f = std::make_shared<TrainTokenizerFlags>();
  CLI::App* verb = app.add_subcommand("train-tokenizer", "Learn a byte-level BPE vocabulary from files");
  verb->add_option("--vocab", f->vocab, "tokens, special ones and the 256 bytes included")
      ->required()
      ->check(whole_number(1, INT32_MAX));
  verb->add_option("--out", f->out, "directory to write")->required();
  verb->add_option("--pattern", f->pattern, "how text is cut into words: v3, llm, coder, gpt2")->capture_default_str();
  verb->add_option("--special", f->special, "special token, first ids in this order; repeatable")
      ->allow_extra_args(false);
  verb->add_option("--bos", f->bos, "special token that begins a text");
  verb->add_option("--eos", f->eos, "special token that ends a document");
  verb->add_flag("--lines", f->lines,
                 "count every line by itself, as the trainer of the `tokenizers` library reads files");
  verb->add_option("data", f->data, "files and folders; .jsonl with \"text\"")->required();
  verb->callback([f, &p] { p.run = [f] { return train_tokenizer(*f); }; });
}

}  // namespace birkhoff::apps
