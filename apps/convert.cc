#include <cstdio>
#include <filesystem>
#include <optional>

#include "apps/verbs.h"
#include "checkpoint/adapter.h"
#include "checkpoint/model_files.h"
#include "checkpoint/save_model.h"
#include "core/cpu.h"
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
  const auto say = [](const std::string& text) {
    if (!text.empty()) std::fprintf(stderr, "birkhoff: %s\n", text.c_str());
  };
  const std::string from = checkpoint::resolve_model(f.model, &note);
  say(note);
  if (io::exists(f.out) && !(io::is_directory(f.out) && io::list_directory(f.out).empty()))
    throw Error("convert", f.out + ": exists and is not an empty directory", "give --out a new name");
  checkpoint::ModelFiles files(from);
  nlohmann::json config_json = files.config();
  config_json.erase("training");
  model::ModelConfig config = model::config_from_json(config_json);
  for (auto of : {model::reading_notes, model::writing_notes})
    for (const std::string& text : of(config)) say(text);
  for (const std::string& text : files.complete(config)) say(text);
  model::Weights shapes(config);
  const std::vector<model::ParameterInfo> parameters = model::list_parameters(shapes);
  const checkpoint::TensorMap map = files.match(config, parameters);
  checkpoint::SaveOptions options;
  if (!f.dtype.empty()) options.type = checkpoint::parse_save_type(f.dtype);
  if (!f.names.empty()) options.names = f.names == "hf" ? checkpoint::NameScheme::hf : checkpoint::NameScheme::hub;
  options.keep_unchanged = false;
  if (files.is_directory()) {
    options.source = &map;
  } else {
    if (!options.type) options.type = checkpoint::SaveType::bf16;
    if (config_json.contains("num_nextn_predict_layers"))
      config_json["num_nextn_predict_layers"] = config.num_nextn_predict_layers;
    say(from + ": tokenizer and chat template are not written");
  }
  // Merged weights: the file's rows plus the adapter's.
  std::optional<checkpoint::AdapterFiles> adapter;
  if (!f.adapter.empty() || (files.is_directory() && checkpoint::has_adapter(from)))
    adapter.emplace(f.adapter.empty() ? from : f.adapter, config);
  const checkpoint::RowReader rows = [&](size_t i, int64_t first, int64_t count, Mat out) {
    checkpoint::ModelFiles::read_rows(map, config, parameters[i], i, first, count, out);
    if (adapter) adapter->add_to(parameters[i].name, first, out);
  };
  io::StagedDirectory staged(f.out);
  if (files.is_directory()) copy_other_files(from, staged.path());
  const bool as_they_are = files.is_directory() && !adapter;
  checkpoint::save_model(staged.path(), config, parameters, as_they_are ? checkpoint::RowReader() : rows, config_json,
                         options);
  staged.publish();
  return 0;
}

}  // namespace

void add_convert(CLI::App& app, Program& p) {
  auto f = std::make_shared<ConvertFlags>();
  CLI::App* verb = app.add_subcommand(
      "convert", "Write a model directory with another number format or other tensor names, or from a GGUF file");
  verb->add_option("-m,--model", f->model, "run, checkpoint, model directory or GGUF file")->required();
  verb->add_option(
      "--adapter", f->adapter,
      "LoRA adapter to merge: a PEFT directory, a run or a checkpoint; default: that of a run trained with one");
  verb->add_option("--out", f->out, "directory to create")->required();
  verb->add_option("--dtype", f->dtype, "bf16, fp32 or fp8; default: every tensor as it is, bf16 of a GGUF file");
  verb->add_option("--names", f->names,
                   "hub or hf, for types whose files come with two sets of names; default: as they are")
      ->check(CLI::IsMember({"hub", "hf"}));
  verb->callback([f, &p] { p.run = [f] { return convert(*f); }; });
}

}  // namespace birkhoff::apps
