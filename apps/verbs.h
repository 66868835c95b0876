// One file a verb. Each adds its subcommand with a callback that does the work; the callback's return value is the exit
// code.
#pragma once
#include <CLI/CLI.hpp>
#include <atomic>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace birkhoff::apps {

// What all verbs share. run is set by the parsed subcommand.
struct Program {
  std::string command_line;
  int threads = 0;  // 0: all cores
  std::function<int()> run;
  int thread_count() const;
};

void add_train(CLI::App& app, Program& p);
void add_compare(CLI::App& app, Program& p);
void add_plot(CLI::App& app, Program& p);
void add_generate(CLI::App& app, Program& p);
void add_experts(CLI::App& app, Program& p);
void add_eval(CLI::App& app, Program& p);
void add_logits(CLI::App& app, Program& p);
void add_inspect(CLI::App& app, Program& p);
void add_convert(CLI::App& app, Program& p);
void add_bench(CLI::App& app, Program& p);
void add_plan(CLI::App& app, Program& p);
void add_doctor(CLI::App& app, Program& p);
void add_tokenize(CLI::App& app, Program& p);
void add_train_tokenizer(CLI::App& app, Program& p);
void add_chat(CLI::App& app, Program& p);
void add_chat_format(CLI::App& app, Program& p);
void add_chat_parse(CLI::App& app, Program& p);

// "bench gemm": dtype is bf16 or fp32. Returns the exit code.
int bench_gemm(const std::string& dtype, bool as_json, int threads);

// --preset P, --config FILE and --set key=value, in that order of precedence.
struct SettingsFlags {
  std::string preset, config;
  std::vector<std::string> set;
  void add(CLI::App& verb);
  nlohmann::json base() const;  // preset, overlaid by the file; throws Error
};

// Raised by Ctrl-C, SIGTERM and SIGHUP once install_stop_handlers() was called; another one, a second or more later,
// ends the program at once. said: what stderr is told at the first; it must outlive the program.
const std::atomic<bool>& stop_requested();
void install_stop_handlers(const char* said = nullptr);
// Signals that are failed reads and writes: pipes nobody reads, files at their size limit, mapped files that lost their
// end, which are named (exit code 3).
void install_fault_handlers();

// Tells standard error of folders in the folders of data, which are not read.
void say_unread_folders(const std::vector<std::string>& data);

// What a run or a model directory has beside its weights, for io::check_not_an_input.
std::vector<std::string> files_beside_weights(const std::string& directory);
// Files of the open model and of its run. model: as given by -m; directory: where it was found.
std::vector<std::string> files_of_model(const std::string& model, const std::string& directory);
// Throws Error (exit code 2) when what is to be written is one of them.
void check_not_of_model(const std::string& out, const std::string& model, const std::string& directory);

// Whitespace-separated token ids, at least one; name: whose they are, for the message. Throws Error.
std::vector<int32_t> parse_token_list(const std::string& text, const std::string& name);
std::vector<int32_t> read_token_file(const std::string& path);
// A file, pipe or device of at most kMaxTextBytes, which is read once. Throws Error.
inline constexpr size_t kMaxTextBytes = size_t{64} << 20;
std::string read_text_file(const std::string& path);

}  // namespace birkhoff::apps
