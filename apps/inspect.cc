#include <cstdio>

#include "apps/verbs.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/hf_directory.h"
#include "checkpoint/model_files.h"
#include "core/error.h"
#include "io/manifest.h"
#include "io/user_files.h"
#include "model/config/inventory.h"
#include "model/config/notes.h"
#include "model/config/presets.h"
#include "train/train_config.h"

namespace birkhoff::apps {
namespace {

// Every checkpoint of a run, or the one directory.
void verify(const std::string& what, std::FILE* out) {
  std::vector<std::string> directories{what};
  if (io::is_directory(what + "/checkpoints")) directories = checkpoint::checkpoint_directories(what);
  std::string all;
  for (const std::string& dir : directories) {
    const std::vector<std::string> problems = io::verify_manifest(dir);
    for (const std::string& p : problems) all += "\n  " + dir + ": " + p;
    if (problems.empty()) std::fprintf(out, "%s: all files match the manifest\n", dir.c_str());
  }
  if (!all.empty())
    throw Error("checkpoint", "files that do not match the manifest:" + all,
                "a run is resumed from its newest checkpoint that matches");
}

model::ModelConfig config_of(const std::string& what, const std::vector<std::string>& set) {
  if (!io::exists(what) && what.find('/') != std::string::npos)
    throw Error("inspect", what + ": no such directory", "give a model directory, a GGUF file, a run or a preset");
  if (!io::exists(what)) return train::make_run_config(nlohmann::json::parse(model::find_preset(what).json), set).model;
  if (!set.empty())
    throw Error("inspect", what + " is no preset: its settings are what they are", "--set changes a preset",
                ExitCode::usage);
  // A run is described before its first checkpoint.
  if (io::is_directory(what + "/checkpoints") && !checkpoint::has_checkpoints(what))
    return train::model_of_directory(checkpoint::read_config_json(what));
  std::string note;
  const std::string path = checkpoint::resolve_model(what, &note);
  if (!note.empty()) std::fprintf(stderr, "birkhoff: %s\n", note.c_str());
  return train::model_of_directory(checkpoint::read_model_config(path));
}

void print_text(const model::Inventory& v, const std::string& unknown_keys) {
  std::printf("model_type        %s\n", v.model_type.c_str());
  std::printf("parameters        %lld total, %lld active (%lld with the input embedding)\n",
              static_cast<long long>(v.total), static_cast<long long>(v.active),
              static_cast<long long>(v.active_with_embedding));
  for (const auto& [name, n] : v.groups) std::printf("  %-15s %lld\n", name.c_str(), static_cast<long long>(n));
  if (v.mtp)
    std::printf("prediction        %lld more in modules that predict further tokens\n", static_cast<long long>(v.mtp));
  std::printf("KV cache          %lld elements, %lld bytes a token (bf16), %lld (int8)\n",
              static_cast<long long>(v.kv_elements_per_token), static_cast<long long>(v.kv_bytes_per_token),
              static_cast<long long>(v.kv_int8_bytes_per_token));
  if (v.kv_expanded_bytes_per_token != v.kv_bytes_per_token)
    std::printf("                  %lld bytes a token (bf16), %lld (int8) with --mla expanded\n",
                static_cast<long long>(v.kv_expanded_bytes_per_token),
                static_cast<long long>(v.kv_expanded_int8_bytes_per_token));
  if (v.mtp_kv_elements_per_token)
    std::printf("                  and %lld bytes (bf16), %lld (int8) while the modules draft\n",
                2 * static_cast<long long>(v.mtp_kv_elements_per_token),
                static_cast<long long>(v.mtp_kv_int8_bytes_per_token));
  if (v.kv_constant_bytes)
    std::printf("                  and %lld bytes whatever the length\n", static_cast<long long>(v.kv_constant_bytes));
  std::printf("FLOPs a token     %.4g inference, %.4g training\n", v.flops_infer, v.flops_train);
  std::printf("memory            %.0f MiB inference (bf16), %.0f MiB training state\n",
              static_cast<double>(v.infer_bytes) / (1 << 20), static_cast<double>(v.train_bytes) / (1 << 20));
  if (!unknown_keys.empty()) std::printf("not used          %s\n", unknown_keys.c_str());
}

}  // namespace

void add_inspect(CLI::App& app, Program& p) {
  struct InspectFlags {
    std::string what;
    std::vector<std::string> set;
    bool json = false, verify = false;
  };
  auto f = std::make_shared<InspectFlags>();
  CLI::App* verb = app.add_subcommand("inspect", "Size, cost and parts of a model directory, GGUF file, run or preset");
  verb->add_option("what", f->what, "directory, GGUF file or preset")->required();
  verb->add_option("--set", f->set, "key=value, over a preset; repeatable")->allow_extra_args(false);
  verb->add_flag("--json", f->json, "JSON instead of text");
  verb->add_flag("--verify", f->verify, "check the files of a checkpoint against its manifest");
  verb->callback([f, &p] {
    p.run = [f] {
      if (f->verify && !io::exists(f->what))
        throw Error("inspect", f->what + ": no such directory to verify", "presets have no files", ExitCode::usage);
      if (f->verify) verify(f->what, f->json ? stderr : stdout);
      const model::ModelConfig config = config_of(f->what, f->set);
      for (const std::string& note : model::reading_notes(config)) std::fprintf(stderr, "birkhoff: %s\n", note.c_str());
      const model::Inventory v = model::take_inventory(config);
      if (f->json)
        std::printf("%s\n", model::to_json(v).dump(2).c_str());
      else
        print_text(v, model::unknown_key_names(config));
      return 0;
    };
  });
}

}  // namespace birkhoff::apps
