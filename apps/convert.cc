#include <cstdio>
#include <filesystem>
#include <optional>

#include "apps/verbs.h"
#include "checkpoint/adapter.h"
#include "checkpoint/hf_directory.h"
#include "checkpoint/save_model.h"
#include "core/error.h"
#include "io/atomic_file.h"
#include "io/user_files.h"
#include "model/config/notes.h"

namespace birkhoff::apps {
namespace {

namespace fs = std::filesystem;

struct ConvertFlags {
  std::string model, adapter, out, dtype, names;
};

// Tokenizer, generation_config.json, licence, ...: whatever is beside the weights.
void copy_other_files(const std::string& from, const std::string& to) {
  for (const std::string& name : io::list_directory(from)) {
    const std::string extension = fs::path(name).extension().string();
    if (!io::is_file(from + "/" + name) || extension == ".safetensors" || extension == ".bin" ||
        name == "config.json" || name == "manifest.json" || name == "model.safetensors.index.json" ||
        name == "pytorch_model.bin.index.json")
      continue;
    io::copy_file(from + "/" + name, to + "/" + name);
  }
}

int convert(const ConvertFlags& f) {
  std::string note;
  const std::string from = checkpoint::resolve_model_directory(f.model, &note);
  if (!note.empty()) std::fprintf(stderr, "birkhoff: %s\n", note.c_str());
  if (io::exists(f.out) && !(io::is_directory(f.out) && io::list_directory(f.out).empty()))
    throw Error("convert", f.out + ": exists and is not an empty directory", "give --out a new name");
  nlohmann::json config_json = checkpoint::read_config_json(from);
  config_json.erase("training");
  model::ModelConfig config = model::config_from_json(config_json);
  for (auto of : {model::reading_notes, model::writing_notes})
    for (const std::string& text : of(config)) std::fprintf(stderr, "birkhoff: %s\n", text.c_str());
  const checkpoint::WeightFiles files(from);
  if (const std::string text = checkpoint::drop_absent_predictors(files, config); !text.empty())
    std::fprintf(stderr, "birkhoff: %s\n", text.c_str());
  model::Weights shapes(config);
  const std::vector<model::ParameterInfo> parameters = model::list_parameters(shapes);
  const checkpoint::TensorMap map = checkpoint::match_tensors(files, config, parameters);
  checkpoint::SaveOptions options;
  if (!f.dtype.empty()) options.type = checkpoint::parse_save_type(f.dtype);
  if (!f.names.empty()) options.names = f.names == "hf" ? checkpoint::NameScheme::hf : checkpoint::NameScheme::hub;
  options.source = &map;
  options.keep_unchanged = false;
  // Merged weights: the file's rows plus the adapter's.
  std::optional<checkpoint::AdapterFiles> adapter;
  if (!f.adapter.empty() || checkpoint::has_adapter(from))
    adapter.emplace(f.adapter.empty() ? from : f.adapter, config);
  const checkpoint::RowReader merged = [&](size_t i, int64_t first, int64_t count, Mat out) {
    ops::StoredMatrix w;
    w.append(map.views[i]);
    ops::expand_rows(w, first, count, out);
    adapter->add_to(parameters[i].name, first, out);
  };
  io::StagedDirectory staged(f.out);
  copy_other_files(from, staged.path());
  checkpoint::save_model(staged.path(), config, parameters, adapter ? merged : checkpoint::RowReader(), config_json,
                         options);
  staged.publish();
  return 0;
}

}  // namespace

void add_convert(CLI::App& app, Program& p) {
  auto f = std::make_shared<ConvertFlags>();
  CLI::App* verb =
      app.add_subcommand("convert", "Write a model directory with another number format or other tensor names");
  verb->add_option("-m,--model", f->model, "run, checkpoint or model directory")->required();
  verb->add_option(
      "--adapter", f->adapter,
      "LoRA adapter to merge: a PEFT directory, a run or a checkpoint; default: that of a run trained with one");
  verb->add_option("--out", f->out, "directory to create")->required();
  verb->add_option("--dtype", f->dtype, "bf16, fp32 or fp8; default: every tensor as it is");
  verb->add_option("--names", f->names,
                   "hub or hf, for types whose files come with two sets of names; default: as they are")
      ->check(CLI::IsMember({"hub", "hf"}));
  verb->callback([f, &p] { p.run = [f] { return convert(*f); }; });
}

}  // namespace birkhoff::apps
