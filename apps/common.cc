#include <cstdio>
#include <sstream>

#include "apps/verbs.h"
#include "core/cpu.h"
#include "core/error.h"
#include "data/documents.h"
#include "io/json_file.h"
#include "io/mapped_file.h"
#include "io/user_files.h"
#include "model/config/presets.h"

namespace birkhoff::apps {

int Program::thread_count() const { return threads ? threads : cpu_cores(); }

void SettingsFlags::add(CLI::App& verb) {
  verb.add_option("--preset", preset, "named settings, e.g. demo, tiny, small");
  verb.add_option("--config", config, "JSON file of settings, over the preset");
  verb.add_option("--set", set, "a setting over both; repeatable")->allow_extra_args(false)->type_name("KEY=VALUE");
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

void say_unread_folders(const std::vector<std::string>& data) {
  for (const std::string& note : data::unread_folders(data)) std::fprintf(stderr, "birkhoff: %s\n", note.c_str());
}

std::vector<std::string> files_beside_weights(const std::string& directory) {
  std::vector<std::string> paths;
  for (const char* name : {"config.json", "run.json", "metrics.jsonl", "generation_config.json", "tokenizer.json",
                           "tokenizer_config.json", "tokenizer.model", "chat_template.jinja"})
    paths.push_back(directory + "/" + name);
  return paths;
}

std::vector<std::string> files_of_model(const std::string& model, const std::string& directory) {
  std::vector<std::string> paths = io::mapped_files();
  for (const std::string& at : {model, directory})
    for (std::string& path : files_beside_weights(at)) paths.push_back(std::move(path));
  return paths;
}

void check_not_of_model(const std::string& out, const std::string& model, const std::string& directory) {
  io::check_not_an_input(out, files_of_model(model, directory));
}

std::string read_text_file(const std::string& path) { return io::read_stream(path, kMaxTextBytes); }

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

std::vector<int32_t> read_token_file(const std::string& path) {
  return parse_token_list(std::string(io::without_mark(read_text_file(path))), path);
}

}  // namespace birkhoff::apps
