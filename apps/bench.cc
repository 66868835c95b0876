#include <cstdio>

#include "apps/flags.h"
#include "apps/output.h"
#include "apps/verbs.h"
#include "infer/bench_infer.h"
#include "train/bench_train.h"

namespace birkhoff::apps {
namespace {

void print_train(const nlohmann::json& r) {
  const auto num = [&](const char* key) { return r[key].get<double>(); };
  std::printf("%.0f tokens/s   step %.1f / %.1f / %.1f ms (min / median / max)\n", num("tokens_per_s"),
              r["step_ms"]["min"].get<double>(), r["step_ms"]["median"].get<double>(),
              r["step_ms"]["max"].get<double>());
  std::printf("forward %.1f  backward %.1f  optimizer %.1f ms\n", r["phase_ms"]["forward"].get<double>(),
              r["phase_ms"]["backward"].get<double>(), r["phase_ms"]["optimizer"].get<double>());
  std::printf("model %.1f GFLOP a step; peak %.0f GFLOP/s, so %.1f %% of it; read %.1f GB/s\n",
              num("model_flops") * 1e-9, num("peak_gflops"),
              num("model_flops") / r["step_ms"]["median"].get<double>() * 1e-6 / num("peak_gflops") * 100,
              num("read_gbs"));
  for (const auto& [name, share] : r["work_share"].items())
    std::printf("  %-12s %5.1f %%\n", name.c_str(), share.get<double>() * 100);
  std::printf("memory %lld MiB (planned %lld)   %s   %s\n", static_cast<long long>(r["rss_mib"]),
              static_cast<long long>(r["planned_mib"]), r["cpu"].get<std::string>().c_str(),
              r["isa"].get<std::string>().c_str());
}

void print_infer(const nlohmann::json& r) {
  const auto num = [&](const char* key) { return r[key].get<double>(); };
  std::printf("files %.0f MiB   one pass over the mapping %.0f ms   opening and one token %.0f ms (%.2f passes)\n",
              num("file_mib"), num("pass_ms"), num("open_and_token_ms"), num("open_and_token_ms") / num("pass_ms"));
  for (const nlohmann::json& d : r["depths"]) {
    std::printf("depth %lld\n", static_cast<long long>(d["depth"].get<int64_t>()));
    if (d.contains("prompt_tokens_per_s"))
      std::printf("  prompt    %.1f tokens/s\n", d["prompt_tokens_per_s"].get<double>());
    if (!d.contains("decode_ms")) continue;
    const nlohmann::json& ms = d["decode_ms"];
    std::printf(
        "  decoding  %.1f tokens/s   token %.1f / %.1f / %.1f ms (min / median / max)   weights %.1f GB/s, %.0f %%\n",
        1e3 / ms["median"].get<double>(), ms["min"].get<double>(), ms["median"].get<double>(), ms["max"].get<double>(),
        d["weight_gbs"].get<double>(), d["of_read_bandwidth"].get<double>() * 100);
    if (d.contains("disk_bytes_per_token"))
      std::printf("  streamed  %.2f tokens/s in all   %.1f MiB a token read from the disk\n",
                  d["decode_tokens_per_s"].get<double>(), d["disk_bytes_per_token"].get<double>() / (1 << 20));
  }
  if (r.contains("together"))
    std::printf("%lld sessions together: %.1f tokens/s, %.1f ms for a token of each\n",
                static_cast<long long>(r["together"]["sessions"].get<int64_t>()),
                r["together"]["tokens_per_s"].get<double>(), r["together"]["step_ms"].get<double>());
  std::printf("caches in %s: %.0f bytes a token, %.0f whatever the length\n",
              r["cache_type"].get<std::string>().c_str(), num("cache_bytes_per_token"), num("cache_bytes_constant"));
  std::printf("weights %.0f MiB a decoded token; read bandwidth %.1f GB/s\n", num("weight_bytes_per_token") / (1 << 20),
              num("read_gbs"));
  std::printf("memory %.0f MiB after opening, %.0f MiB in all (planned %.0f)   %s   %s   %s\n", num("rss_opened_mib"),
              num("rss_mib"), num("planned_mib"), r["dtype"].get<std::string>().c_str(),
              r["cpu"].get<std::string>().c_str(), r["isa"].get<std::string>().c_str());
}

}  // namespace

void add_bench(CLI::App& app, Program& p) {
  struct BenchFlags {
    WeightFlags weights;
    CacheFlags caches;
    SettingsFlags settings;
    int64_t steps = 10;
    bool json = false;
    std::string dtype = "bf16", model, compute;
    infer::InferLoad load;
  };
  auto f = std::make_shared<BenchFlags>();
  CLI::App* verb = app.add_subcommand("bench", "Measure this machine with this engine");
  verb->require_subcommand(1);
  CLI::App* gemm = verb->add_subcommand("gemm", "Matrix products");
  gemm->add_option("--dtype", f->dtype, "bf16 or fp32")->check(CLI::IsMember({"bf16", "fp32"}))->capture_default_str();
  CLI::App* train = verb->add_subcommand("train", "Training steps on synthetic tokens");
  f->settings.add(*train);
  train->add_option("--steps", f->steps, "measured steps")->check(whole_number(1, 1 << 30))->capture_default_str();
  CLI::App* infer = verb->add_subcommand("infer", "Opening a model, its prompt and decoding");
  infer->add_option("-m,--model", f->model, "run, checkpoint, model directory or GGUF file")->required();
  infer->add_option("--prompt", f->load.prompt, "tokens of the prompt")
      ->check(whole_number(0, 1 << 30))
      ->capture_default_str();
  infer->add_option("--decode", f->load.decode, "tokens decoded one by one")
      ->check(whole_number(0, 1 << 30))
      ->capture_default_str();
  infer->add_option("--depth", f->load.depths, "tokens before the prompt; several are measured one after another")
      ->check(whole_number(0, 1 << 30))
      ->delimiter(',')
      ->capture_default_str();
  infer->add_option("--sessions", f->load.sessions, "also so many that decode together, behind the first depth")
      ->check(whole_number(1, infer::Engine::kPassTokens))
      ->capture_default_str();
  f->weights.add(*infer);
  f->caches.add(*infer);
  infer->add_option("--dtype", f->compute, "fp32 or bf16; default: as trained");
  for (CLI::App* v : {gemm, train, infer}) {
    v->add_flag("--json", f->json, "JSON instead of text");
    v->add_option("--threads", p.threads, "default: all cores");
  }
  gemm->callback([f, &p] { p.run = [f, &p] { return bench_gemm(f->dtype, f->json, p.thread_count()); }; });
  infer->callback([f, &p] {
    p.run = [f, &p] {
      infer::EngineOptions options;
      options.compute = f->compute;
      options.threads = p.thread_count();
      f->weights.apply(options);
      f->caches.apply(options);
      options.progress = preparing_progress();
      const nlohmann::json r = infer::bench_infer(f->model, options, f->load);
      if (r.contains("note")) std::fprintf(stderr, "birkhoff: %s\n", r["note"].get<std::string>().c_str());
      if (f->json)
        std::printf("%s\n", r.dump().c_str());
      else
        print_infer(r);
      return 0;
    };
  });
  train->callback([f, &p] {
    p.run = [f, &p] {
      const nlohmann::json r = [&] {
        train::Progress progress(train::kWarmSteps + f->steps, shows_bar(), false);
        return train::bench_train(train::make_run_config(f->settings.base(), f->settings.set), f->steps,
                                  p.thread_count(), progress);
      }();
      if (f->json)
        std::printf("%s\n", r.dump().c_str());
      else
        print_train(r);
      return 0;
    };
  });
}

}  // namespace birkhoff::apps
