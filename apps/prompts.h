// What `generate` is asked to continue.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace birkhoff::apps {

struct PromptFlags {
  std::string prompt, prompt_file, prompts, tokens_file;
  std::vector<std::string> fim;  // none, or prefix and suffix
};

// What the flags give to continue, before there is a model that reads it.
struct Prompts {
  std::vector<std::string> texts;
  std::vector<int32_t> ids;  // of --tokens-file
  bool are_ids = false;

  // No prompt has more tokens: one a byte, and those that models want around a text.
  int64_t most_tokens() const;
};

// Throws Error: more than one flag is given, a file that cannot be read or holds no prompts.
Prompts read_prompts(const PromptFlags& f);

}  // namespace birkhoff::apps
