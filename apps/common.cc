#include <unistd.h>

#include <csignal>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>

#include "apps/verbs.h"
#include "core/cpu.h"
#include "core/error.h"
#include "io/json_file.h"
#include "model/config/presets.h"

namespace birkhoff::apps {
namespace {
std::atomic<bool> stop{false};
std::atomic<int64_t> first_signal_ms{0};
std::atomic<const char*> told_at_first{nullptr};

// Of a signal handler, so write() alone. A line of progress may be open.
void tell(const char* said) {
  for (const char* part : {isatty(STDERR_FILENO) ? "\n" : "", "birkhoff: ", said, "\n"})
    if (write(STDERR_FILENO, part, std::strlen(part)) < 0) return;
}

// A second signal ends the program at once. One that comes within a second is the same wish: a process group and its
// leader both pass it on.
void on_signal(int number) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const int64_t ms = now.tv_sec * 1000 + now.tv_nsec / 1000000;
  int64_t first = 0;
  if (first_signal_ms.compare_exchange_strong(first, ms)) {
    stop = true;
    if (const char* said = told_at_first) tell(said);
  } else if (ms - first > 1000) {
    std::signal(number, SIG_DFL);
    std::raise(number);
  }
}
}  // namespace

int Program::thread_count() const {
  if (threads < 0) throw Error("threads", "must be positive, is " + std::to_string(threads), "", ExitCode::usage);
  return threads ? threads : cpu_cores();
}

void SettingsFlags::add(CLI::App& verb) {
  verb.add_option("--preset", preset, "named settings, e.g. demo, tiny, small");
  verb.add_option("--config", config, "JSON file of settings, over the preset");
  verb.add_option("--set", set, "key=value, over both; repeatable")->allow_extra_args(false);
}

nlohmann::json SettingsFlags::base() const {
  nlohmann::json j = nlohmann::json::object();
  if (!preset.empty()) j = nlohmann::json::parse(model::find_preset(preset).json);
  if (!config.empty()) {
    const nlohmann::json file = io::read_json(config);
    if (!file.is_object()) throw Error("config", config + ": not a JSON object");
    j.update(file);
  }
  return j;
}

const std::atomic<bool>& stop_requested() { return stop; }

void install_stop_handlers(const char* said) {
  told_at_first = said;
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGHUP, &action, nullptr);
}

std::string read_text_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw Error("input", path + ": cannot be read", "check the path and its permissions");
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::vector<int32_t> parse_token_list(const std::string& text, const std::string& path) {
  std::istringstream in(text);
  std::vector<int32_t> ids;
  for (std::string word; in >> word;) {
    size_t used = 0;
    long long id = -1;
    try {
      id = std::stoll(word, &used);
    } catch (const std::exception&) {
      used = 0;
    }
    if (used != word.size() || id < 0 || id > INT32_MAX)
      throw Error("tokens", path + ": \"" + word.substr(0, 40) + "\" is no token id",
                  "whitespace-separated natural numbers were expected");
    ids.push_back(static_cast<int32_t>(id));
  }
  if (ids.empty()) throw Error("tokens", path + ": no token ids");
  return ids;
}

std::vector<int32_t> read_token_file(const std::string& path) { return parse_token_list(read_text_file(path), path); }

}  // namespace birkhoff::apps
