#include <cstdio>
#include <filesystem>
#include <optional>
#include <vector>

#include "apps/flags.h"
#include "apps/output.h"
#include "apps/verbs.h"
#include "checkpoint/adapter.h"
#include "checkpoint/gguf_metadata.h"
#include "checkpoint/model_files.h"
#include "checkpoint/panel_cache.h"
#include "checkpoint/save_gguf.h"
#include "checkpoint/save_model.h"
#include "core/cpu.h"
#include "core/error.h"
#include "infer/measured_model.h"
#include "io/atomic_file.h"
#include "io/user_files.h"
#include "model/config/notes.h"
#include "text/chat/chat_format.h"
#include "text/tokenizer/gguf_vocabulary.h"

namespace birkhoff::apps {
namespace {

namespace fs = std::filesystem;

struct ConvertFlags {
  std::string model, adapter, out, dtype, names, gguf, gguf_type, gguf_head_type;
  WeightFlags weights;
};

void say(const std::string& text) {
  if (!text.empty()) std::fprintf(stderr, "birkhoff: %s\n", text.c_str());
}

// Tokenizer, generation_config.json, licence, ...: whatever is beside the weights.
void copy_other_files(const std::string& from, const std::string& to) {
  for (const std::string& name : io::list_directory(from)) {
    const std::string extension = fs::path(name).extension().string();
    if (!io::is_file(from + "/" + name) || extension == ".safetensors" || extension == ".bin" ||
        extension == ".panels" || name == "config.json" || name == "manifest.json" ||
        name == "model.safetensors.index.json" || name == "pytorch_model.bin.index.json")
      continue;
    io::copy_file(from + "/" + name, to + "/" + name);
  }
}

// An opened model, and how its rows are read.
struct Source {
  explicit Source(const ConvertFlags& f)
      : path(checkpoint::resolve_model(f.model, &note)), files(path), config_json(files.config()) {
    say(note);
    trained_here = config_json.contains("training");
    for (const char* key : {"training", "panels"}) config_json.erase(key);
    config = model::config_from_json(config_json);
    for (const std::string& text : model::reading_notes(config)) say(text);
    for (const std::string& text : files.complete(config)) say(text);
    const model::Weights shapes(config);
    parameters = model::list_parameters(shapes);
    map = files.match(config, parameters);
    // Merged weights: the file's rows plus the adapter's.
    if (!f.adapter.empty() || (files.is_directory() && checkpoint::has_adapter(path)))
      adapter.emplace(f.adapter.empty() ? path : f.adapter, config);
  }
  checkpoint::RowReader rows() const {
    return [this](size_t i, int64_t first, int64_t count, Mat out) {
      checkpoint::ModelFiles::read_rows(map, config, parameters[i], i, first, count, out);
      if (adapter) adapter->add_to(parameters[i].name, first, out);
    };
  }

  std::string note, path;  // in this order: finding the path writes the note
  checkpoint::ModelFiles files;
  nlohmann::json config_json;
  bool trained_here = false;
  model::ModelConfig config;
  std::vector<model::ParameterInfo> parameters;
  checkpoint::TensorMap map;
  std::optional<checkpoint::AdapterFiles> adapter;
};

// Quantised weights, which need not fit into memory, for who opens the directory.
void add_panels(const ConvertFlags& f, const std::string& directory, int threads) {
  infer::EngineOptions options;
  f.weights.apply(options);
  options.panels = directory;
  options.threads = threads;
  options.progress = preparing_progress();
  if (!infer::make_panels(directory, options))
    throw Error("convert", f.out + ": no matrix can be quantised", "", ExitCode::input);
}

void write_directory(const ConvertFlags& f, const Source& s, int threads) {
  checkpoint::SaveOptions options;
  if (!f.dtype.empty()) options.type = checkpoint::parse_save_type(f.dtype);
  if (!f.names.empty()) options.names = f.names == "hf" ? checkpoint::NameScheme::hf : checkpoint::NameScheme::hub;
  options.keep_unchanged = false;
  nlohmann::json config_json = s.config_json;
  if (f.weights.given()) config_json["panels"] = checkpoint::panels_key(f.weights.formats());
  io::StagedDirectory staged(f.out);
  if (s.files.is_directory()) {
    options.source = &s.map;
    copy_other_files(s.path, staged.path());
  } else {
    if (!options.type) options.type = checkpoint::SaveType::bf16;
    if (config_json.contains("num_nextn_predict_layers"))
      config_json["num_nextn_predict_layers"] = s.config.num_nextn_predict_layers;
    if (!text::write_gguf_tokenizer(io::GgufFile(s.path), staged.path(), text::chat::template_sources(s.path)))
      say(s.path + ": has no tokenizer, none is written");
  }
  const bool as_they_are = s.files.is_directory() && !s.adapter;
  checkpoint::save_model(staged.path(), s.config, s.parameters, as_they_are ? checkpoint::RowReader() : s.rows(),
                         config_json, options);
  if (f.weights.given()) add_panels(f, staged.path(), threads);
  staged.publish();
}

// What is no setting of the model: its name and its tokenizer.
io::GgufMetadata describe(const Source& s) {
  io::GgufMetadata m;
  if (!s.files.is_directory()) {
    const io::GgufFile file(s.path);
    for (const io::GgufValue& v : file.values())
      if (v.key == "general.name" || v.key.starts_with("tokenizer.")) m.put(v);
    return m;
  }
  m.put("general.name", fs::path(s.path).filename().string());
  const bool bytes = s.config.vocab_size == 256 || (s.config.vocab_size > 256 && s.trained_here);
  text::put_gguf_tokenizer(m, s.path, s.config.vocab_size, bytes, text::chat::template_sources(s.path));
  return m;
}

void write_gguf(const ConvertFlags& f, const Source& s, const Exec& exec) {
  checkpoint::GgufSaveOptions options;
  options.matrices = checkpoint::parse_gguf_type("--gguf-type", f.gguf_type.empty() ? "bf16" : f.gguf_type);
  options.head = !f.gguf_head_type.empty() ? checkpoint::parse_gguf_type("--gguf-head-type", f.gguf_head_type)
                 : options.matrices == ops::StoredType::q4_0 ? ops::StoredType::q8_0
                                                             : options.matrices;
  options.note = say;
  options.progress = preparing_progress();
  checkpoint::save_gguf(exec, f.gguf, s.config, s.parameters, s.map, s.adapter ? s.rows() : checkpoint::RowReader(),
                        describe(s), options);
}

int convert(const ConvertFlags& f, const Program& p) {
  if (f.out.empty() == f.gguf.empty())
    throw Error("convert", f.out.empty() ? "nothing says what to write" : "--out and --gguf at once",
                "--out DIR writes a model directory, --gguf FILE a GGUF file", ExitCode::usage);
  if (!f.gguf.empty() && f.weights.given())
    throw Error("convert", "--weights with --gguf", "--gguf-type says what a GGUF file holds", ExitCode::usage);
  if (!f.gguf.empty() && (!f.dtype.empty() || !f.names.empty()))
    throw Error("convert", "--dtype or --names with --gguf",
                "they are of a directory; --gguf-type says what a GGUF file holds", ExitCode::usage);
  if (!f.out.empty() && !(f.gguf_type + f.gguf_head_type).empty())
    throw Error("convert", "--gguf-type or --gguf-head-type with --out", "they are of a GGUF file; give --gguf FILE",
                ExitCode::usage);
  if (!f.out.empty() && io::exists(f.out) && !(io::is_directory(f.out) && io::list_directory(f.out).empty()))
    throw Error("convert", f.out + ": exists and is not an empty directory", "give --out a new name");
  const Source source(f);
  if (!f.gguf.empty()) {
    io::check_not_an_input(f.gguf, {source.path});
    write_gguf(f, source, Exec(p.thread_count()));
    return 0;
  }
  for (const std::string& text : model::writing_notes(source.config)) say(text);
  write_directory(f, source, p.thread_count());
  return 0;
}

}  // namespace

void add_convert(CLI::App& app, Program& p) {
  auto f = std::make_shared<ConvertFlags>();
  CLI::App* verb = app.add_subcommand(
      "convert", "Write a model directory with another number format or other tensor names, or a GGUF file");
  verb->add_option("-m,--model", f->model, "run, checkpoint, model directory or GGUF file")->required();
  verb->add_option(
      "--adapter", f->adapter,
      "LoRA adapter to merge: a PEFT directory, a run or a checkpoint; default: that of a run trained with one");
  verb->add_option("--out", f->out, "directory to create");
  verb->add_option("--gguf", f->gguf, "GGUF file to write instead, for llama.cpp or birkhoff");
  verb->add_option("--gguf-type", f->gguf_type, "f32, f16, bf16 (the default), q8_0 or q4_0: matrices of the GGUF file")
      ->capture_default_str();
  verb->add_option("--gguf-head-type", f->gguf_head_type,
                   "the same of the output matrix; default: as --gguf-type, q8_0 beside q4_0");
  verb->add_option("--dtype", f->dtype, "bf16, fp32 or fp8; default: every tensor as it is, bf16 of a GGUF file");
  f->weights.add_formats(*verb);
  verb->add_option("--names", f->names,
                   "hub or hf, for types whose files come with two sets of names; default: as they are")
      ->check(CLI::IsMember({"hub", "hf"}));
  verb->callback([f, &p] { p.run = [f, &p] { return convert(*f, p); }; });
}

}  // namespace birkhoff::apps
