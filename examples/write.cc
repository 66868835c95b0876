// Continues a prompt, or several at once, by the library's one header.
//   birkhoff_write MODEL "a prompt" ["another"]...
#include <cstdio>

#include "api/birkhoff.h"

namespace {
int fail(const birkhoff::api::Failure& f) {
  std::fprintf(stderr, "%s: %s\n", f.where.c_str(), f.what.c_str());
  if (!f.hint.empty()) std::fprintf(stderr, "  %s\n", f.hint.c_str());
  return 1;
}
}  // namespace

int main(int argc, char** argv) {
  using namespace birkhoff::api;
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s MODEL PROMPT...\n", argv[0]);
    return 2;
  }
  auto engine = Engine::open(argv[1]);
  if (!engine) return fail(engine.failure());
  std::vector<std::string> texts(static_cast<size_t>(argc - 2));
  int failed = 0;
  auto writer = Writer::make(*engine);  // it tells the two above when it goes
  if (!writer) return fail(writer.failure());
  for (size_t i = 0; i < texts.size(); ++i) {
    auto prompt = engine->encode(argv[i + 2]);
    if (!prompt) return fail(prompt.failure());
    Writer::Text text;
    text.prompt = *prompt;
    text.options.max_tokens = 60;
    text.options.temperature = 0;
    text.on_token = [&texts, i](const Token& t) {
      texts[i] += t.text;
      return true;
    };
    text.on_end = [&texts, &failed, i](const Result<Written>& written) {
      if (written)
        texts[i] += written->rest;
      else
        failed = fail(written.failure());
    };
    if (const auto id = writer->submit(std::move(text)); !id) return fail(id.failure());
  }
  while (writer->step()) {
  }
  for (size_t i = 0; i < texts.size(); ++i) std::printf("%s%s\n", argv[i + 2], texts[i].c_str());
  return failed;
}
