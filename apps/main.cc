#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "apps/verbs.h"
#include "core/cpu.h"
#include "core/error.h"
#include "core/nearest.h"

namespace {

using birkhoff::Error;
using birkhoff::ExitCode;

void apply_environment() {
  const char* name = std::getenv("BIRKHOFF_ISA");
  if (!name || !*name) return;
  birkhoff::Isa isa;
  if (!birkhoff::parse_isa(name, isa))
    throw Error("BIRKHOFF_ISA", std::string("unknown value \"") + name + "\"", "one of scalar, avx2, avx512, amx",
                ExitCode::usage);
  birkhoff::limit_isa(isa);
}

std::string join(int argc, char** argv) {
  std::string s;
  for (int i = 0; i < argc; ++i) s += (i ? " " : "") + std::string(argv[i]);
  return s;
}

// "--thread" -> did you mean "--threads"?
std::string suggestion(const CLI::App& app, const std::vector<std::string>& unknown) {
  std::vector<std::string> known;
  const CLI::App* verb = &app;
  for (const CLI::App* s : app.get_subcommands()) verb = s;
  for (const CLI::Option* o : verb->get_options())
    for (const auto& l : o->get_lnames()) known.push_back("--" + l);
  for (const CLI::App* s : app.get_subcommands([](const CLI::App*) { return true; })) known.push_back(s->get_name());
  for (const auto& u : unknown) {
    const std::string near = birkhoff::nearest(u.substr(0, u.find('=')), known);
    if (!near.empty()) return "did you mean \"" + near + "\"?";
  }
  return "see birkhoff " + (verb == &app ? std::string() : verb->get_name() + " ") + "--help";
}

// An unknown word explains what is missing, so it is named first: "--dta x" leaves --data missing.
int wrong_command_line(const CLI::App& app, const CLI::ParseError& e) {
  const std::vector<std::string> unknown = app.remaining(true);
  const bool verb = app.get_subcommands().empty();
  const std::string what =
      unknown.empty() ? e.what()
                      : std::string("unknown ") + (verb ? "verb" : "argument") + " \"" + unknown.front() + "\"";
  std::fprintf(stderr, "birkhoff: %s\n  hint: %s\n", what.c_str(), suggestion(app, unknown).c_str());
  return static_cast<int>(ExitCode::usage);
}

int report(const Error& e) {
  std::fprintf(stderr, "birkhoff: %s\n", e.what());
  if (!e.hint().empty()) std::fprintf(stderr, "  hint: %s\n", e.hint().c_str());
  return static_cast<int>(e.code());
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Birkhoff trains, evaluates and runs DeepSeek-family language models on CPUs."};
  app.name("birkhoff");
  app.require_subcommand(1);
  app.set_version_flag("--version", "birkhoff 0.1.0");
  birkhoff::apps::Program program;
  program.command_line = join(argc, argv);
  using namespace birkhoff::apps;
  for (auto* add : {add_train, add_compare, add_plot, add_plan, add_experts, add_generate, add_eval, add_logits,
                    add_inspect, add_convert, add_bench, add_doctor, add_tokenize, add_train_tokenizer, add_chat,
                    add_chat_format, add_chat_parse})
    add(app, program);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help, --version
    return wrong_command_line(app, e);
  }
  std::signal(SIGXFSZ, SIG_IGN);  // a file at its size limit is a failed write with a message, not a killed process
  try {
    apply_environment();
    return program.run();
  } catch (const Error& e) {
    return report(e);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "birkhoff: internal error: %s\n  hint: please report this with the command line\n", e.what());
    return static_cast<int>(ExitCode::failed);
  }
}
