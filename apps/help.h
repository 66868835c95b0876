// What the program says about itself: its version, a verb's help, what was meant by a word it does not know.
#pragma once
#include <CLI/CLI.hpp>
#include <string>

namespace birkhoff::apps {

std::string version_text();  // version and commit, compiler, instruction set

// Examples at the end of each verb's help.
void add_examples(CLI::App& app);

// "help [VERB...]": the same as VERB... --help.
void add_help_verb(CLI::App& app, struct Program& program);

// Reports what is wrong with the command line; verb: as far as it was understood. Returns the exit code.
int wrong_command_line(const CLI::App& app, const CLI::App& verb, const CLI::ParseError& e);

}  // namespace birkhoff::apps
