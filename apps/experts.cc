#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "apps/flags.h"
#include "apps/output.h"
#include "apps/verbs.h"
#include "core/error.h"
#include "io/user_files.h"
#include "lab/experts/expert_report.h"
#include "report/report.h"
#include "train/progress.h"

namespace birkhoff::apps {
namespace {

struct ExpertsFlags {
  std::string model, adapter, dtype, out = "experts.html";
  std::vector<std::string> data;
  std::vector<int64_t> disable_top;
  lab::SpecialisationOptions options;
  bool replace_shared = false, json = false, stream = false;
  bool probes() const { return !disable_top.empty() || replace_shared; }
};

// The progress of a pass, which is only known to have a total when it begins.
eval::Advance advance(std::unique_ptr<train::Progress>& progress) {
  return [&progress](int64_t done, int64_t all) {
    if (!progress) progress = std::make_unique<train::Progress>(all, shows_bar(), false, "window");
    progress->show(done);
  };
}

// Before a long pass, not after it.
void check_output(const std::string& file, const std::vector<lab::Domain>& domains) {
  for (const lab::Domain& d : domains) io::check_not_an_input(file, d.paths);
  if (const auto folder = std::filesystem::path(file).parent_path(); !folder.empty() && !io::is_directory(folder))
    throw Error("experts", "--out " + file + ": there is no folder " + folder.string(),
                "create it, or name another file");
}

// Which layers a probe leaves alone.
void say_hashed(const std::vector<int64_t>& layers) {
  if (layers.empty()) return;
  std::string list;
  for (const int64_t l : layers) list += (list.empty() ? "" : ", ") + std::to_string(l);
  std::fprintf(stderr, "birkhoff: experts of layers %s are looked up by token and stay as they are\n", list.c_str());
}

int probe(const ExpertsFlags& f, const infer::EngineOptions& options) {
  nlohmann::json results = nlohmann::json::array();
  eval::Likelihood first;
  std::unique_ptr<train::Progress> progress;
  const auto result = [&](const model::RoutingProbe& p, const eval::Likelihood& loss) {
    if (results.empty()) first = loss;
    results.push_back(lab::probe_json(p, loss));
    if (f.json) return;
    if (results.size() == 1) std::printf("%-18s %12s %12s %12s\n", "experts", "nats/token", "nats/byte", "difference");
    std::printf("%-18s %12.4f %12.4f %+12.4f\n", lab::probe_name(p).c_str(), loss.nats_per_token(),
                loss.nats_per_byte(), loss.nats_per_token() - first.nats_per_token());
    flush_output();
  };
  say_unread_folders(f.data);
  const lab::ProbeData data{f.data, f.options.seq_len, f.options.validation};
  const model::ExpertLayers layers = lab::run_probes(
      f.model, options, data, lab::probe_list(f.disable_top, f.replace_shared), result, advance(progress));
  progress.reset();
  say_hashed(layers.hashed);
  if (f.json)
    std::printf("%s\n", nlohmann::json{{"tokens", first.tokens},
                                       {"bytes", first.bytes},
                                       {"layers", layers.routed},
                                       {"unchanged_layers", layers.hashed},
                                       {"losses", results}}
                            .dump()
                            .c_str());
  return 0;
}

int specialise(const ExpertsFlags& f, const infer::EngineOptions& options) {
  const std::vector<lab::Domain> domains = lab::parse_domains(f.data);
  check_output(f.out, domains);
  for (const lab::Domain& d : domains) say_unread_folders(d.paths);
  const infer::Engine engine(f.model, options);
  if (!engine.note().empty()) std::fprintf(stderr, "birkhoff: %s\n", engine.note().c_str());
  check_not_of_model(f.out, f.model, engine.directory());
  std::unique_ptr<train::Progress> progress;
  const lab::Specialisation s = lab::specialisation(engine, domains, f.options, advance(progress));
  progress.reset();
  nlohmann::json j = lab::specialisation_json(s, f.options, infer::TextModel(engine));
  j["model"] = f.model;
  report::write_expert_report(j, f.out);
  if (f.json) {
    std::printf("%s\n", j.dump().c_str());
    return 0;
  }
  for (const auto& d : s.domains)
    std::printf("%s: %lld tokens, %lld documents, shuffled as %lld\n", d.name.c_str(), static_cast<long long>(d.tokens),
                static_cast<long long>(d.documents), static_cast<long long>(d.units));
  std::printf("%s%s\n", lab::specialisation_table(s).c_str(), f.out.c_str());
  return 0;
}

}  // namespace

void add_experts(CLI::App& app, Program& p) {
  auto f = std::make_shared<ExpertsFlags>();
  CLI::App* verb =
      app.add_subcommand("experts", "What a model's experts do: specialisation by domain, loss without them");
  verb->add_option("-m,--model", f->model, "run, checkpoint, model directory or GGUF file")->required();
  verb->add_option("--data", f->data,
                   "NAME=PATH, a domain of text; with --disable-top or --replace-shared a plain PATH; repeatable")
      ->required()
      ->allow_extra_args(false);
  verb->add_option("--disable-top", f->disable_top, "loss with each token's R most probable experts masked: R[,R...]")
      ->delimiter(',')
      ->check(whole_number(0, 1024))
      ->allow_extra_args(false);
  verb->add_flag("--replace-shared", f->replace_shared,
                 "loss with the shared experts replaced by as many more routed ones");
  verb->add_flag("--validation", f->options.validation, "only the last 5 % of each source, as in training");
  verb->add_option("--seq-len", f->options.seq_len, "window; default: as trained")->check(whole_number(1, INT32_MAX));
  verb->add_option("--unit-tokens", f->options.unit_tokens,
                   "longer documents are shuffled in parts of about so many tokens")
      ->capture_default_str()
      ->check(whole_number(1, 1 << 30));
  verb->add_option("--shuffles", f->options.shuffles, "of the baseline")
      ->capture_default_str()
      ->check(whole_number(1, 100000));
  verb->add_option("--seed", f->options.seed, "of the shuffles")->capture_default_str();
  verb->add_option("--min-count", f->options.min_count, "choices of an expert by a token that is listed")
      ->capture_default_str()
      ->check(whole_number(1, 1 << 30));
  verb->add_option("--out", f->out, "page to write")->capture_default_str();
  verb->add_option("--adapter", f->adapter, "LoRA adapter to apply: a PEFT directory, a run or a checkpoint");
  verb->add_option("--dtype", f->dtype, "bf16 or fp32; default: as trained");
  verb->add_flag("--stream", f->stream,
                 "weights may be more than memory: they are read from the disk as they are needed");
  verb->add_flag("--json", f->json, "JSON instead of text");
  verb->add_option("--threads", p.threads, "default: all cores");
  verb->callback([f, &p] {
    p.run = [f, &p] {
      infer::EngineOptions options;
      options.compute = f->dtype;
      options.adapter = f->adapter;
      options.threads = p.thread_count();
      options.stream = f->stream;
      options.enough_positions =
          std::max(options.enough_positions, f->options.seq_len ? f->options.seq_len : eval::trained_seq_len(f->model));
      return f->probes() ? probe(*f, options) : specialise(*f, options);
    };
  });
}

}  // namespace birkhoff::apps
