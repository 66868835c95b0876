#include <cstdlib>

#include "apps/output.h"
#include "apps/verbs.h"
#include "core/error.h"
#include "train/run_training.h"

namespace birkhoff::apps {
namespace {

// XDG base directory specification; "" (no cache) when the user has no home.
std::string default_token_cache() {
  const char *cache = std::getenv("XDG_CACHE_HOME"), *home = std::getenv("HOME");
  if (cache && *cache) return std::string(cache) + "/birkhoff/tokens";
  return home && *home ? std::string(home) + "/.cache/birkhoff/tokens" : "";
}

}  // namespace

void add_train(CLI::App& app, Program& p) {
  struct TrainFlags {
    SettingsFlags settings;
    train::TrainOptions options;
  };
  auto f = std::make_shared<TrainFlags>();
  CLI::App* verb = app.add_subcommand("train", "Train a model from a preset or settings; resume a run");
  f->settings.add(*verb);
  verb->add_option("--data", f->options.data, "PATH[@WEIGHT]: a file is a document, a folder its files; repeatable")
      ->allow_extra_args(false);
  verb->add_option("--val", f->options.validation, "validation data instead of the last 5 % of each source")
      ->allow_extra_args(false);
  verb->add_option("--tokenizer", f->options.tokenizer,
                   "directory with tokenizer.json or tokenizer.model; without it bytes are tokens");
  CLI::Option* file =
      verb->add_option("--template", f->options.chat_template,
                       "chat template (Jinja) of conversations; default: the tokenizer's directory's own");
  verb->add_option("--encoder", f->options.chat_encoder, "v3.2 or v4: a chat format without a template")
      ->excludes(file);
  verb->add_option("--token-cache", f->options.token_cache,
                   "where tokenized data is kept; default: birkhoff/tokens in the user's cache");
  verb->add_option("--out", f->options.out, "run directory")->required();
  verb->add_option("--init", f->options.init, "start from the weights of this run, checkpoint or model directory");
  verb->add_flag("--resume", f->options.resume, "go on from the newest good checkpoint of --out");
  verb->add_flag("--quiet", f->options.quiet, "no progress");
  verb->add_option("--threads", p.threads, "default: all cores");
  verb->callback([f, &p] {
    p.run = [f, &p] {
      f->options.threads = p.thread_count();
      f->options.command_line = p.command_line;
      f->options.terminal = shows_bar();
      f->options.settings_base = f->settings.base();
      f->options.settings_set = f->settings.set;
      if (f->options.token_cache.empty()) f->options.token_cache = default_token_cache();
      install_stop_handlers("interrupting: the step is finished and the run saved; again to stop at once");
      return train::run_training(f->options, stop_requested());
    };
  });
}

}  // namespace birkhoff::apps
