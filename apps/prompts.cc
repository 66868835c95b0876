#include "apps/prompts.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "apps/verbs.h"
#include "core/error.h"
#include "io/user_files.h"

namespace birkhoff::apps {
namespace {

// Lines {"prompt": "..."}; empty ones are passed over.
std::vector<std::string> read_prompt_lines(const std::string& path) {
  std::vector<std::string> texts;
  std::istringstream in(read_text_file(path));
  size_t number = 0;
  for (std::string line; std::getline(in, line);) {
    if (++number == 1) line = std::string(io::without_mark(line));
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const nlohmann::json j = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!j.is_object() || !j.contains("prompt") || !j["prompt"].is_string())
      throw Error("generate", path + ":" + std::to_string(number) + ": no {\"prompt\": \"...\"}",
                  "every line is a JSON object with the text to continue");
    texts.push_back(j["prompt"].get<std::string>());
  }
  if (texts.empty()) throw Error("generate", path + ": no prompts");
  return texts;
}

}  // namespace

int64_t Prompts::most_tokens() const {
  constexpr size_t kAround = 16;
  size_t most = ids.size();
  for (const std::string& t : texts) most = std::max(most, t.size() + kAround);
  return static_cast<int64_t>(most);
}

Prompts read_prompts(const PromptFlags& f) {
  const int given =
      !f.prompt.empty() + !f.prompt_file.empty() + !f.prompts.empty() + !f.tokens_file.empty() + !f.fim.empty();
  if (given > 1)
    throw Error("generate", "more than one of --prompt, --prompt-file, --prompts, --tokens-file, --fim", "give one",
                ExitCode::usage);
  Prompts p;
  if (!f.tokens_file.empty()) {
    p.ids = read_token_file(f.tokens_file);
    p.are_ids = true;
  } else if (!f.prompts.empty()) {
    p.texts = read_prompt_lines(f.prompts);
  } else if (!f.fim.empty()) {
    p.texts = {f.fim[0] + f.fim[1]};  // for its size
  } else if (f.prompt == "-") {
    p.texts = {io::read_standard_input(kMaxTextBytes)};
  } else {
    p.texts = {f.prompt_file.empty() ? f.prompt : read_text_file(f.prompt_file)};
  }
  return p;
}

}  // namespace birkhoff::apps
