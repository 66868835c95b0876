#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <new>

#include "apps/flags.h"
#include "apps/help.h"
#include "apps/output.h"
#include "apps/verbs.h"
#include "core/cpu.h"
#include "core/error.h"
#include "io/mapped_file.h"

namespace birkhoff::apps {
namespace {

constexpr void (*kVerbs[])(CLI::App&, Program&) = {
    add_train,    add_compare,         add_plot,    add_plan,        add_experts,    add_generate,
    add_eval,     add_logits,          add_inspect, add_convert,     add_bench,      add_doctor,
    add_tokenize, add_train_tokenizer, add_chat,    add_chat_format, add_chat_parse, add_help_verb};

void apply_environment() {
  const char* name = std::getenv("BIRKHOFF_ISA");
  if (!name || !*name) return;
  Isa isa;
  if (!parse_isa(name, isa))
    throw Error("BIRKHOFF_ISA", std::string("unknown value \"") + name + "\"", "one of scalar, avx2, avx512, amx",
                ExitCode::usage);
  limit_isa(isa);
}

std::string join(int argc, char** argv) {
  std::string s;
  for (int i = 0; i < argc; ++i) s += (i ? " " : "") + std::string(argv[i]);
  return s;
}

// The verb that the first words name, as far as they do.
CLI::App& called_verb(CLI::App& app, int argc, char** argv) {
  CLI::App* verb = &app;
  for (int i = 1; i < argc; ++i) {
    const auto named = verb->get_subcommands([&](CLI::App* s) { return s->get_name() == argv[i]; });
    if (named.empty()) break;
    verb = named.front();
  }
  return *verb;
}

int report(const Error& e) {
  std::fprintf(stderr, "birkhoff: %s\n", e.what());
  if (!e.hint().empty()) std::fprintf(stderr, "  hint: %s\n", e.hint().c_str());
  return static_cast<int>(e.code());
}

// Runs f; every way in which it fails is an exit code and, for all but a reader that has gone, a message.
int guarded(const std::function<int()>& f) {
  try {
    return f();
  } catch (const OutputFailed& e) {
    if (e.error == EPIPE) return static_cast<int>(ExitCode::closed_pipe);
    return report(
        Error("file",
              std::string("standard output: ") +
                  (e.error == EBADF ? "is closed" : std::string("cannot be written: ") + std::strerror(e.error)),
              "what was printed is lost or not complete"));
  } catch (const Error& e) {
    return report(e);
  } catch (const std::filesystem::filesystem_error& e) {
    return report(Error("file", e.path1().string() + ": " + e.code().message(), "check the path and its permissions"));
  } catch (const std::bad_alloc&) {
    return report(
        Error("memory", "the system gives no more memory", "use a smaller model or input, or a larger limit"));
  } catch (const std::exception& e) {
    std::fprintf(stderr, "birkhoff: internal error: %s\n  hint: please report this with the command line\n", e.what());
    return static_cast<int>(ExitCode::failed);
  }
}

int run(CLI::App& app, const CLI::App& verb, const Program& program, int argc, char** argv) {
  int code = 0;
  try {
    app.parse(argc, argv);
    apply_environment();
    code = program.run();
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() != 0) return wrong_command_line(app, verb, e);
    std::printf("%s", e.get_name() == "CallForHelp" ? app.help().c_str() : (std::string(e.what()) + "\n").c_str());
  }
  flush_output();
  for (const std::string& path : io::changed_mapped_files())
    std::fprintf(stderr, "birkhoff: warning: %s was written to while it was read: results may be of a mixture\n",
                 path.c_str());
  return code;
}

}  // namespace
}  // namespace birkhoff::apps

int main(int argc, char** argv) {
  using namespace birkhoff::apps;
  reserve_standard_streams();
  install_fault_handlers();
  CLI::App app{"Birkhoff trains, evaluates and runs DeepSeek-family language models on CPUs."};
  app.name("birkhoff");
  app.require_subcommand(1);
  app.set_version_flag("-V,--version", version_text());
  Program program;
  program.command_line = join(argc, argv);
  for (const auto add : kVerbs) add(app, program);
  add_examples(app);
  CLI::App& verb = called_verb(app, argc, argv);
  if (&verb != &app) finish_options(verb);
  return guarded([&] { return run(app, verb, program, argc, argv); });
}
