#include "apps/help.h"

#include <cstdio>
#include <map>

#include "apps/flags.h"
#include "apps/verbs.h"
#include "core/error.h"
#include "core/nearest.h"

namespace birkhoff::apps {
namespace {

const std::map<std::string, const char*>& examples() {
  static const std::map<std::string, const char*> all{
      {"train",
       "  birkhoff train --preset demo --data text.txt --out runs/demo\n"
       "  birkhoff train --preset demo --set steps=500 --set lr=1e-3 --data text.txt --out runs/short\n"
       "  birkhoff train --resume --out runs/demo"},
      {"compare",
       "  birkhoff compare --study studies/attention.json --out runs/attention\n"
       "  birkhoff compare --preset demo --vary lr=1e-3,3e-3 --data text.txt --out runs/lr"},
      {"plot", "  birkhoff plot runs/one runs/two --out comparison.html"},
      {"plan", "  birkhoff plan mhc-3b --tokens 39.3e9 --machines 32"},
      {"experts", "  birkhoff experts -m runs/demo --data text.txt --validation --out experts.html"},
      {"generate",
       "  birkhoff generate -m runs/demo -p 'OTHELLO.' -n 300\n"
       "  birkhoff generate -m runs/demo --prompt-file <(head -20 text.txt) --temp 0"},
      {"chat", "  birkhoff chat -m DIR --system 'Answer in one sentence.'"},
      {"eval",
       "  birkhoff eval -m runs/demo --data text.txt --validation --json\n"
       "  birkhoff eval -m DIR --tasks mmlu,gsm8k --data-dir data/eval --out runs/eval"},
      {"logits", "  birkhoff logits -m DIR --tokens-file ids.txt --out logits.safetensors"},
      {"inspect", "  birkhoff inspect demo\n  birkhoff inspect runs/demo --verify"},
      {"convert", "  birkhoff convert -m runs/demo --out model --dtype bf16"},
      {"bench", "  birkhoff bench gemm\n  birkhoff bench train --preset tiny\n  birkhoff bench infer -m DIR"},
      {"doctor", "  birkhoff doctor"},
      {"tokenize",
       "  birkhoff tokenize -m DIR < text.txt > ids.txt\n"
       "  birkhoff tokenize -m DIR --decode < ids.txt"},
      {"train-tokenizer", "  birkhoff train-tokenizer --vocab 4096 --eos '</s>' --out tokenizer text.txt"},
      {"chat-format",
       "  echo '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}' | birkhoff chat-format --encoder v4"},
      {"chat-parse", "  echo '{\"text\": \"Hello\"}' | birkhoff chat-parse --encoder v4"}};
  return all;
}

std::string suggestion(const CLI::App& verb, const std::vector<std::string>& unknown) {
  std::vector<std::string> known;
  for (const CLI::Option* o : verb.get_options())
    for (const auto& l : o->get_lnames()) known.push_back("--" + l);
  for (const CLI::App* s : verb.get_subcommands([](const CLI::App*) { return true; })) known.push_back(s->get_name());
  for (const auto& u : unknown) {
    const std::string near = nearest(u.substr(0, u.find('=')).substr(0, 100), known);
    if (!near.empty()) return "did you mean \"" + near + "\"?";
  }
  std::string path;
  for (const CLI::App* v = &verb; v; v = v->get_parent()) path = v->get_name() + " " + path;
  return "see " + path + "--help";
}

}  // namespace

void add_examples(CLI::App& app) {
  app.footer("birkhoff VERB --help tells the options of a verb and gives examples.");
  for (const auto& [name, text] : examples()) app.get_subcommand(name)->footer(std::string("Examples:\n") + text);
}

void add_help_verb(CLI::App& app, Program& program) {
  auto words = std::make_shared<std::vector<std::string>>();
  CLI::App* help = app.add_subcommand("help", "What a verb does and its options: help VERB");
  help->add_option("verb", *words, "one of the verbs; without it, all are listed");
  help->callback([&app, &program, words] {
    program.run = [&app, words] {
      CLI::App* of = &app;
      std::string before;
      for (const std::string& word : *words) {
        CLI::App* next = nullptr;
        for (CLI::App* s : of->get_subcommands([](CLI::App*) { return true; }))
          if (s->get_name() == word) next = s;
        if (!next) {
          const std::string hint = suggestion(*of, {word});
          throw Error("help", "unknown verb \"" + word + "\"", hint, ExitCode::usage);
        }
        before += (before.empty() ? "" : " ") + of->get_name();
        of = next;
      }
      if (of != &app) finish_options(*of);
      app.clear();  // else the library shows the help of "help" itself
      std::fputs(of->help(before).c_str(), stdout);
      return 0;
    };
  });
}

int wrong_command_line(const CLI::App& app, const CLI::App& verb, const CLI::ParseError& e) {
  const std::vector<std::string> unknown = app.remaining(true);
  std::string what = e.what(), hint;
  // An unknown word explains what is missing, so it is named first: "--dta x" leaves --data missing.
  if (!unknown.empty())
    what = std::string("unknown ") + (app.get_subcommands().empty() ? "verb" : "argument") + " \"" + unknown.front() +
           "\"";
  const std::string variable = unknown.empty() ? variable_behind(verb, what) : "";
  hint = variable.empty() ? suggestion(verb, unknown) : "the value is that of the environment's " + variable;
  std::fprintf(stderr, "birkhoff: %s\n  hint: %s\n", shortened(what).c_str(), hint.c_str());
  return static_cast<int>(ExitCode::usage);
}

}  // namespace birkhoff::apps
