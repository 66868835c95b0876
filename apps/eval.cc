#include "apps/eval_modes.h"
#include "checkpoint/model_files.h"
#include "core/error.h"

namespace birkhoff::apps {
namespace {

void add_task_flags(CLI::App& verb, EvalFlags& f) {
  verb.add_option("--tasks", f.tasks, "tasks, groups, \"all\" or task files (*.json), with commas between")
      ->delimiter(',')
      ->allow_extra_args(false);
  verb.add_option("--data-dir", f.data_dir, "where the documents of tasks are (docs/eval.md)");
  verb.add_flag("--sample", f.sample, "the few questions that are built in, instead of a data directory");
  verb.add_option("--out", f.out, "directory for results.json, samples_TASK.jsonl, report.html and answers");
  verb.add_option("--answers", f.answers, "directory of answers that are kept, for several runs; default: OUT/answers");
  verb.add_option("--protocol", f.protocol, "harness (lm-evaluation-harness) or paper (DeepSeek)")
      ->capture_default_str();
  verb.add_option("--fewshot", f.shots, "examples before a question; default: the task's")
      ->check(whole_number(0, 1000));
  verb.add_option("--limit", f.limit, "the first N documents of a task, or below 1 that share of them")
      ->check(real_number(0, 1e9));
  verb.add_option("--docs", f.docs, "these documents, I,J,...");
  verb.add_option("--max-gen", f.max_tokens, "tokens of a generated answer; default: the task's")
      ->check(whole_number(1, INT32_MAX));
  verb.add_option("--context", f.context, "tokens that the model reads at most; default: max_position_embeddings")
      ->check(whole_number(2, INT32_MAX));
  verb.add_option("--seed", f.seed, "of the choice of few-shot examples")->capture_default_str();
  verb.add_flag("--chat", f.chat, "questions and examples as turns of the model's chat format");
  verb.add_flag("--thinking", f.thinking, "with --chat: the model thinks before it answers");
  verb.add_option("--chat-template", f.chat_template, "Jinja file instead of the model's own format");
  verb.add_option("--system", f.system, "system prompt");
  verb.add_flag("--allow-code", f.allow_code, "run the programs that a model writes, in a sandbox");
  verb.add_flag("--list", f.list, "show the tasks and the documents found");
  verb.add_flag("--score", f.score, "judge answers of standard input, without a model");
  verb.add_flag("--jsonl", f.jsonl, "with --score: JSON lines in and out");
  verb.add_option("--compare", f.compare, "directories of two or more evaluations, document by document")
      ->expected(2, 64);
}

int run_eval(const EvalFlags& f, const Program& p) {
  const int modes = !f.data.empty() + !f.tasks.empty() + f.list + f.score + !f.compare.empty();
  if (modes != 1 && !(f.list && !f.tasks.empty() && modes == 2))
    throw Error("eval", modes ? "more than one thing to do" : "nothing to do",
                "give --data TEXT, --tasks T,..., --list, --score or --compare DIR DIR", ExitCode::usage);
  if (f.list) return list_eval_tasks(f);
  if (f.score) return score_answers(f);
  if (!f.compare.empty()) return compare_evaluations(f);
  if (f.model.empty()) throw Error("eval", "no model", "-m MODEL: a run, directory or GGUF file", ExitCode::usage);
  return f.data.empty() ? eval_tasks(f, p) : eval_loss(f, p);
}

bool has_latent_attention(const std::string& model) {
  const nlohmann::json rank =
      checkpoint::read_model_config(checkpoint::resolve_model(model)).value("kv_lora_rank", nlohmann::json());
  return rank.is_number() && rank > 0;
}

}  // namespace

infer::EngineOptions EvalFlags::engine_options(const Program& p, int64_t positions) const {
  infer::EngineOptions o;
  o.compute = dtype;
  o.set = set;
  o.enough_positions = positions;
  o.adapter = adapter;
  o.threads = p.thread_count();
  weights.apply(o);
  caches.apply(o);
  // A form that nobody asked for is nothing to complain of where there is none.
  if (caches.mla_flag->count() == 0 && !has_latent_attention(model)) o.latent_attention = {};
  return o;
}

void add_eval(CLI::App& app, Program& p) {
  auto f = std::make_shared<EvalFlags>();
  CLI::App* verb = app.add_subcommand("eval", "Tasks such as mmlu and gsm8k, or loss on text");
  verb->add_option("-m,--model", f->model, "run, checkpoint, model directory or GGUF file");
  verb->add_option("--adapter", f->adapter, "LoRA adapter to apply: a PEFT directory, a run or a checkpoint");
  verb->add_option("--data", f->data, "loss: file or folder; repeatable")->allow_extra_args(false);
  verb->add_option("--seq-len", f->seq_len, "loss: window; default: as trained")->check(whole_number(1, INT32_MAX));
  verb->add_flag("--validation", f->validation, "loss: only the last 5 % of each source, as in training");
  add_task_flags(*verb, *f);
  f->weights.add(*verb);
  f->caches.mla = "expanded";  // the bits of training
  f->caches.add(*verb);
  verb->add_option("--dtype", f->dtype, "bf16 or fp32; default: as trained");
  verb->add_option("--set", f->set, "key=value over the model's config.json; repeatable")->allow_extra_args(false);
  verb->add_flag("--json", f->json, "JSON instead of text");
  verb->add_option("--threads", p.threads, "default: all cores");
  verb->callback([f, &p] { p.run = [f, &p] { return run_eval(*f, p); }; });
}

}  // namespace birkhoff::apps
