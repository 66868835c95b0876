#include "lab/compare/compare.h"

#include <cstdio>

#include "apps/flags.h"
#include "apps/output.h"
#include "apps/verbs.h"
#include "core/error.h"
#include "lab/compare/summary.h"

namespace birkhoff::apps {
namespace {

struct CompareFlags {
  SettingsFlags settings;
  std::string study, results, out;
  std::vector<std::string> vary, data;
  int64_t seeds = 0;
  bool dry_run = false, json = false, quiet = false;
};

lab::Study study_of(const CompareFlags& f) {
  if (f.study.empty() == f.vary.empty())
    throw Error("compare", "give a study or a grid", "--study FILE, or --preset P --vary key=a,b", ExitCode::usage);
  if (!f.study.empty() && !(f.settings.preset.empty() && f.settings.config.empty()))
    throw Error("compare", "--preset and --config belong to --vary",
                "a study file names its preset; --set goes over it", ExitCode::usage);
  lab::Study s = f.study.empty() ? lab::grid_study(f.settings.base(), f.vary) : lab::read_study(f.study);
  if (f.study.empty()) s.preset = f.settings.preset;
  if (f.seeds) s.seeds = f.seeds;
  if (!f.data.empty()) s.data = f.data;
  return s;
}

int print(const lab::CompareOutcome& o, bool json) {
  if (o.results.is_null()) return o.exit_code;
  std::printf("%s", json ? (o.summary.dump(1) + "\n").c_str() : lab::table_text(o.results, o.summary).c_str());
  return o.exit_code;
}

int run(const CompareFlags& f, const Program& p) {
  if (!f.results.empty()) {
    if (!f.study.empty() || !f.vary.empty())
      throw Error("compare", "--results draws what is there; --study and --vary train", "leave one out",
                  ExitCode::usage);
    return print(lab::redraw(f.results, f.out), f.json);
  }
  lab::CompareOptions o;
  o.study = study_of(f);
  o.out = f.out;
  o.overrides = f.settings.set;
  o.threads = p.thread_count();
  o.command_line = p.command_line;
  o.terminal = shows_bar();
  o.quiet = f.quiet;
  if (f.dry_run) {
    std::printf("%s", f.json ? (lab::plan_of(o).dump(1) + "\n").c_str() : lab::describe_plan(o).c_str());
    return 0;
  }
  install_stop_handlers();
  return print(lab::run_study(o, stop_requested()), f.json);
}

}  // namespace

void add_compare(CLI::App& app, Program& p) {
  auto f = std::make_shared<CompareFlags>();
  CLI::App* verb = app.add_subcommand(
      "compare", "Train the variants of a study or grid with several seeds and set them side by side");
  verb->add_option("--study", f->study, "JSON file of a study; studies/ has some");
  verb->add_option("--vary", f->vary, "key=a,b,...: a grid over the settings of --preset; repeatable")
      ->allow_extra_args(false);
  f->settings.add(*verb);
  verb->add_option("--seeds", f->seeds, "seeds 1 to K; default: the study's, or 3")->check(whole_number(1, 1000));
  verb->add_option("--data", f->data, "PATH[@WEIGHT], instead of the study's; repeatable")->allow_extra_args(false);
  verb->add_option("--out", f->out, "directory of the runs, results.json and report.html")->required();
  verb->add_option("--results", f->results, "draw report and table from this results.json, without runs");
  verb->add_flag("--dry-run", f->dry_run, "list the runs, with memory and time expected");
  verb->add_flag("--json", f->json, "what goes to stdout as JSON");
  verb->add_flag("--quiet", f->quiet, "no progress");
  verb->add_option("--threads", p.threads, "default: all cores");
  verb->callback([f, &p] { p.run = [f, &p] { return run(*f, p); }; });
}

}  // namespace birkhoff::apps
