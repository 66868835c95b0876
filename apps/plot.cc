#include <cstdio>

#include "apps/verbs.h"
#include "io/user_files.h"
#include "report/report.h"

namespace birkhoff::apps {

void add_plot(CLI::App& app, Program& p) {
  struct PlotFlags {
    std::vector<std::string> runs;
    std::string out = "comparison.html";
  };
  auto f = std::make_shared<PlotFlags>();
  CLI::App* verb = app.add_subcommand("plot", "Set several runs side by side in one HTML file");
  verb->add_option("runs", f->runs, "run directories")->required();
  verb->add_option("--out", f->out, "file to write")->capture_default_str();
  verb->callback([f, &p] {
    p.run = [f] {
      for (const std::string& run : f->runs) io::check_not_an_input(f->out, files_beside_weights(run));
      report::write_comparison(f->runs, f->out);
      if (!io::same_file(f->out, "/dev/stdout")) std::printf("%s\n", f->out.c_str());
      return 0;
    };
  });
}

}  // namespace birkhoff::apps
