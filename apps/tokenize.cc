#include <cstdio>
#include <string>

#include "apps/output.h"
#include "apps/verbs.h"
#include "checkpoint/model_files.h"
#include "core/error.h"
#include "io/user_files.h"
#include "text/tokenizer/tokenizer.h"

namespace birkhoff::apps {
namespace {

constexpr size_t kMaxInputBytes = size_t{1} << 30;

struct TokenizeFlags {
  std::string model, tokenizer;
  bool jsonl = false, decode = false, special = false;
};

using nlohmann::json;

std::string dumped(const json& j) { return j.dump(-1, ' ', false, json::error_handler_t::replace); }

Error bad_line(int64_t line, const std::string& what, const char* expected) {
  return Error("tokenize", "line " + std::to_string(line) + ": " + what, std::string("expected ") + expected);
}

std::vector<int32_t> ids_of(const json& list, int64_t line) {
  std::vector<int32_t> ids;
  if (!list.is_array()) throw bad_line(line, "\"ids\" is not a list", "{\"ids\": [1, 2, 3]}");
  for (const json& id : list) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX)
      throw bad_line(line, dumped(id) + " is not a token id", "{\"ids\": [1, 2, 3]}");
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

json convert(const text::Tokenizer& t, const TokenizeFlags& f, const json& in, int64_t line) {
  if (f.decode) {
    if (!in.is_object() || !in.contains("ids")) throw bad_line(line, "has no \"ids\"", "{\"ids\": [1, 2, 3]}");
    return {{"text", t.decode(ids_of(in.at("ids"), line), f.special)}};
  }
  if (!in.is_object() || !in.contains("text") || !in.at("text").is_string())
    throw bad_line(line, "has no \"text\"", "{\"text\": \"...\"}");
  const auto& text = in.at("text").get_ref<const std::string&>();
  return {{"ids", f.special ? t.encode_with_special(text) : t.encode(text)}};
}

int lines(const text::Tokenizer& t, const TokenizeFlags& f) {
  std::string line;
  for (int64_t n = 1; next_line(line); ++n) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    json in;
    try {
      in = json::parse(line);
    } catch (const json::parse_error&) {
      throw bad_line(n, "is not JSON", f.decode ? "{\"ids\": [1, 2, 3]}" : "{\"text\": \"...\"}");
    }
    write_line(dumped(convert(t, f, in, n)));
  }
  return 0;
}

// All of standard input is one text, or one list of ids.
int whole(const text::Tokenizer& t, const TokenizeFlags& f) {
  const std::string in = io::read_standard_input(kMaxInputBytes);
  if (f.decode) {
    const std::string out = t.decode(parse_token_list(in, "standard input"), f.special);
    std::fwrite(out.data(), 1, out.size(), stdout);
    return 0;
  }
  const std::vector<int32_t> ids = f.special ? t.encode_with_special(in) : t.encode(in);
  for (size_t i = 0; i < ids.size(); ++i) std::printf("%s%d", i ? " " : "", ids[i]);
  std::printf("\n");
  return 0;
}

}  // namespace

void add_tokenize(CLI::App& app, Program& p) {
  auto f = std::make_shared<TokenizeFlags>();
  CLI::App* verb = app.add_subcommand("tokenize", "Text to token ids and back, from standard input to standard output");
  auto* model = verb->add_option("-m,--model", f->model, "model directory or GGUF file with its tokenizer");
  auto* file =
      verb->add_option("--tokenizer", f->tokenizer, "tokenizer.json or tokenizer.model, or a directory that holds one");
  model->excludes(file);
  verb->add_flag("--jsonl", f->jsonl, "a line {\"text\": ...} in, a line {\"ids\": [...]} out");
  verb->add_flag("--decode", f->decode, "ids in, text out");
  verb->add_flag("--special", f->special,
                 "put the tokens around the text that the model expects; with --decode: leave special tokens out");
  verb->callback([f, &p] {
    p.run = [f] {
      if (f->model.empty() && f->tokenizer.empty())
        throw Error("tokenize", "which tokenizer?", "give -m DIR or --tokenizer FILE", ExitCode::usage);
      const std::string directory =
          f->model.empty() || text::Tokenizer::exists(f->model) ? f->model : checkpoint::resolve_model(f->model);
      const auto t = text::Tokenizer::open(f->model.empty() ? f->tokenizer : directory);
      return f->jsonl ? lines(*t, *f) : whole(*t, *f);
    };
  });
}

}  // namespace birkhoff::apps
