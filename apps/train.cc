#include <unistd.h>

#include "apps/verbs.h"
#include "core/error.h"
#include "train/trainer.h"

namespace birkhoff::apps {

void add_train(CLI::App& app, Program& p) {
  struct Flags {
    SettingsFlags settings;
    train::TrainOptions options;
  };
  auto f = std::make_shared<Flags>();
  CLI::App* verb = app.add_subcommand("train", "Train a model from a preset or settings; resume a run");
  f->settings.add(*verb);
  verb->add_option("--data", f->options.data, "PATH[@WEIGHT]: a file is a document, a folder its files; repeatable")->allow_extra_args(false);
  verb->add_option("--val", f->options.validation, "validation data instead of the last 5 % of each source")->allow_extra_args(false);
  verb->add_option("--out", f->options.out, "run directory")->required();
  verb->add_flag("--resume", f->options.resume, "go on from the newest good checkpoint of --out");
  verb->add_flag("--quiet", f->options.quiet, "no progress");
  verb->add_option("--threads", p.threads, "default: all cores");
  verb->callback([f, &p] {
    p.run = [f, &p] {
      f->options.threads = p.thread_count();
      f->options.command_line = p.command_line;
      f->options.terminal = isatty(2) != 0;
      f->options.settings_base = f->settings.base();
      f->options.settings_set = f->settings.set;
      install_stop_handlers();
      return train::run_training(f->options, stop_requested());
    };
  });
}

}  // namespace birkhoff::apps
