#include "eval/evaluation.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "core/error.h"
#include "eval/statistics.h"
#include "io/atomic_file.h"
#include "io/json_file.h"
#include "io/sha256.h"
#include "io/user_files.h"
#include "report/evaluation_page.h"
#include "text/jinja/python_print.h"

namespace birkhoff::eval {
namespace {

// Scores of one task by filter and metric, in the order of the task.
struct ScoreColumn {
  std::string filter, metric;
  std::vector<double> values;
};
class ScoreColumns {
 public:
  void add(const std::string& filter, const Metrics& metrics) {
    for (const auto& [name, value] : metrics) add(filter, name, value);
  }
  void add(const std::string& filter, const std::string& metric, double value) {
    const auto at = std::find_if(columns_.begin(), columns_.end(),
                                 [&](const ScoreColumn& c) { return c.filter == filter && c.metric == metric; });
    if (at != columns_.end()) return at->values.push_back(value);
    columns_.push_back({filter, metric, {value}});
  }
  const std::vector<ScoreColumn>& all() const { return columns_; }

 private:
  std::vector<ScoreColumn> columns_;
};

constexpr char kGoldMetric[] = "gold_nats_per_byte";

nlohmann::json stderr_of(const MeanScore& s) { return s.stderr_ ? nlohmann::json(*s.stderr_) : nlohmann::json("N/A"); }

// The first filter's values have plain names too.
void put_score(nlohmann::json& to, const ScoreColumn& c, const MeanScore& s) {
  if (!to.contains(c.metric)) to[c.metric] = s.mean, to[c.metric + "_stderr"] = stderr_of(s);
  to[c.metric + "," + c.filter] = s.mean, to[c.metric + "_stderr," + c.filter] = stderr_of(s);
}

nlohmann::json choice_json(const std::string& continuation, const ChoiceAnswer& a) {
  return {{"continuation", continuation},
          {"logprob", a.score.loglikelihood},
          {"is_greedy", a.score.greedy},
          {"tokens", a.tokens}};
}

void put_metrics(nlohmann::json& to, const Metrics& metrics) {
  for (const auto& [name, value] : metrics)
    if (!to.contains(name)) to[name] = value;
}

struct TaskOutcome {
  ScoreColumns columns;
  std::vector<nlohmann::json> samples;
  std::string prompts;  // of all that was asked, for its hash
};

class Judging {
 public:
  Judging(const Task& task, const EvaluationOptions& o) : task_(task), o_(o) {}

  // On all threads, then in the order of the questions.
  TaskOutcome all(const Exec& exec, const std::vector<Question>& questions,
                  const std::vector<Answered>& answers) const {
    std::vector<std::vector<Judgement>> judgements(questions.size());
    exec.parallel_for(static_cast<int64_t>(questions.size()), [&](int64_t n) {
      const auto i = static_cast<size_t>(n);
      judgements[i] = judge(questions[i], answers[i]);
    });
    TaskOutcome out;
    for (size_t i = 0; i < questions.size(); ++i) {
      for (const Judgement& j : judgements[i]) out.columns.add(j.filter, j.metrics);
      const double gold = gold_nats_per_byte(questions[i], answers[i]);
      if (answers[i].right.tokens > 0) out.columns.add("none", kGoldMetric, gold);
      out.samples.push_back(sample(questions[i], answers[i], judgements[i], gold));
      out.prompts += out.samples.back().at("prompt_hash").get<std::string>();
      for (const std::string& c : questions[i].continuations) out.prompts += c + '\0';
    }
    return out;
  }

 private:
  std::vector<Judgement> judge(const Question& q, const Answered& a) const {
    if (task_.generates()) return task_.scoring.judge(q.references, a.text, o_.run_program);
    std::vector<double> scores, alone;
    for (const ChoiceAnswer& c : a.choices) scores.push_back(c.score.loglikelihood);
    for (const ChoiceAnswer& c : a.alone) alone.push_back(c.score.loglikelihood);
    return {{"none", "", task_.scoring.judge_choices(scores, q.choices, q.gold, alone)}};
  }

  static double gold_nats_per_byte(const Question& q, const Answered& a) {
    return -a.right.score.loglikelihood / static_cast<double>(std::max<size_t>(1, q.answer.size()));
  }

  nlohmann::json sample(const Question& q, const Answered& a, const std::vector<Judgement>& judgements,
                        double gold) const {
    nlohmann::json s = {{"doc_id", q.doc_id},
                        {"doc_hash", document_hash(q.document)},
                        {"fewshot_rows", q.shots},
                        {"document", nlohmann::json::parse(text::chat::json_dump(q.document).bytes())}};
    std::string prompt = q.context;
    if (!q.turns.empty()) {
      s["turns"] = nlohmann::json::array();
      for (const Turn& t : q.turns) s["turns"].push_back({{"role", t.role}, {"content", t.content}});
      prompt = s["turns"].dump();
    }
    s["context"] = prompt, s["prompt_hash"] = prompt_hash(prompt);
    if (task_.generates()) {
      s["generated"] = a.text, s["generated_tokens"] = a.text_tokens, s["truncated"] = {a.text_cut};
      s["filters"] = nlohmann::json::object();
      for (const Judgement& j : judgements) {
        nlohmann::json& f = s["filters"][j.filter];
        f["extracted"] = j.extracted;
        put_metrics(f, j.metrics), put_metrics(s, j.metrics);
      }
      s["target"] = q.answer;
    } else {
      s["choices"] = nlohmann::json::array(), s["truncated"] = nlohmann::json::array();
      for (size_t i = 0; i < a.choices.size(); ++i) {
        s["choices"].push_back(choice_json(q.continuations[i], a.choices[i]));
        s["truncated"].push_back(a.choices[i].cut);
      }
      s["target"] = q.gold;
      for (const Judgement& j : judgements) put_metrics(s, j.metrics), put_metrics(s["metrics"], j.metrics);
    }
    if (a.right.tokens > 0)
      s["gold_logprob"] = a.right.score.loglikelihood, s["gold_tokens"] = a.right.tokens, s[kGoldMetric] = gold;
    return s;
  }

  const Task& task_;
  const EvaluationOptions& o_;
};

// Tasks may be named by paths.
std::string file_name_of(std::string task) {
  std::replace_if(
      task.begin(), task.end(), [](char c) { return c == '/' || c == '\\' || c == ' '; }, '_');
  return task;
}

void write_lines(const std::string& path, const std::vector<nlohmann::json>& lines) {
  io::StagedFile file(path);
  for (const nlohmann::json& line : lines) {
    const std::string text = line.dump() + "\n";
    file.append(text.data(), text.size());
  }
  file.publish();
}

nlohmann::json counts_json(const AskCounts& c) {
  return {{"requests", c.requests},
          {"answers_kept", c.kept},
          {"truncated", c.cut},
          {"answers_truncated", c.answers_cut},
          {"prompt_tokens", c.prompt_tokens},
          {"computed_tokens", c.read_tokens + c.written_tokens},
          {"written_tokens", c.written_tokens},
          {"seconds", c.seconds},
          {"tokens_per_s", c.seconds > 0 ? static_cast<double>(c.read_tokens + c.written_tokens) / c.seconds : 0.0}};
}

class EvaluationRun {
 public:
  EvaluationRun(const infer::Engine& engine, const infer::TextModel& text, const std::vector<AskedTask>& tasks,
                const EvaluationOptions& o, const std::atomic<bool>& cancel)
      : engine_(engine), text_(text), tasks_(tasks), o_(o), cancel_(cancel) {}

  // null: cancelled.
  nlohmann::json run(const std::vector<TaskGroup>& groups) {
    io::create_directories(o_.out);
    io::create_directories(o_.answers);
    const io::DirectoryLock lock(o_.answers);
    for (size_t i = 0; i < tasks_.size(); ++i)
      if (!run_task(i)) return nullptr;
    nlohmann::json results = {{"results", results_},     {"groups", scores_of(groups)},  {"model", o_.model},
                              {"settings", o_.settings}, {"versions", versions_},        {"n-shot", shots_},
                              {"n-samples", documents_}, {"counts", counts_json(total_)}};
    io::write_json(o_.out + "/results.json", results);
    report::write_evaluation_page(o_.out + "/report.html", results, samples_);
    return results;
  }

 private:
  bool run_task(size_t i) {
    const auto& [task, questions] = tasks_[i];
    AnswerStore store(o_.answers + "/" + file_name_of(task.name) + ".jsonl");
    if (store.damaged() > 0)
      o_.warn(store.path() + ": " + std::to_string(store.damaged()) + " damaged lines are ignored");
    for (const std::string& remark : task.remarks) o_.warn(task.name + ": " + remark);
    AskCounts counts;
    const auto answers = ask(
        engine_, text_, task, questions, o_.ask, store, counts,
        [&](int64_t done) {
          o_.progress({i, tasks_.size(), done});
        },
        cancel_);
    if (answers.size() < questions.size()) return false;
    const TaskOutcome outcome = Judging(task, o_).all(engine_.exec(), questions, answers);
    take(task, outcome, questions.size(), counts);
    warn_of(task, answers, counts);
    write_lines(o_.out + "/samples_" + file_name_of(task.name) + ".jsonl", outcome.samples);
    samples_.push_back({task.name, outcome.samples});
    return true;
  }

  void take(const Task& task, const TaskOutcome& outcome, size_t n, const AskCounts& counts) {
    nlohmann::json& r = results_[task.name];
    r = counts_json(counts);
    r["alias"] = task.name, r["n"] = n, r["version"] = task.version, r["num_fewshot"] = task.shots,
    r["protocol"] = task.protocol;
    r["prompts"] = io::sha256(outcome.prompts);
    for (const ScoreColumn& c : outcome.columns.all()) {
      const MeanScore s = mean_score(c.values);
      put_score(r, c, s);
      scores_[task.name].emplace_back(c, s);
    }
    versions_[task.name] = task.version, shots_[task.name] = task.shots;
    documents_[task.name] = {{"original", task.documents()}, {"effective", n}};
    total_.requests += counts.requests, total_.kept += counts.kept, total_.cut += counts.cut,
        total_.answers_cut += counts.answers_cut;
    total_.prompt_tokens += counts.prompt_tokens, total_.read_tokens += counts.read_tokens;
    total_.written_tokens += counts.written_tokens, total_.seconds += counts.seconds;
  }

  // What makes scores something else than they seem.
  void warn_of(const Task& task, const std::vector<Answered>& answers, const AskCounts& counts) const {
    if (counts.cut > 0)
      o_.warn(
          task.name + ": " + std::to_string(counts.cut) + " of " + std::to_string(counts.requests) +
          " requests are longer than the " + std::to_string(o_.ask.max_length) +
          " tokens that the model reads, and lost their beginning" +
          (counts.answers_cut > 0 ? ", " + std::to_string(counts.answers_cut) + " of them a part of the answer" : ""));
    const auto level = [](const Answered& a) {
      return a.choices.size() > 1 && std::all_of(a.choices.begin(), a.choices.end(), [&](const ChoiceAnswer& c) {
               return c.score.loglikelihood == a.choices.front().score.loglikelihood;
             });
    };
    if (const auto n = std::count_if(answers.begin(), answers.end(), level); n > 0)
      o_.warn(task.name + ": all choices of " + std::to_string(n) + " documents are equally probable");
  }

  nlohmann::json scores_of(const std::vector<TaskGroup>& groups) const {
    nlohmann::json scores = nlohmann::json::object();
    for (const TaskGroup& g : groups) {
      nlohmann::json& r = scores[g.name];
      r = {{"alias", g.name}, {"version", g.version}, {"tasks", g.tasks}};
      size_t n = 0;
      for (const std::string& t : g.tasks) n += documents_.at(t).at("effective").get<size_t>();
      r["n"] = n;
      for (const auto& [column, unused] : scores_.at(g.tasks.front())) {
        std::vector<MeanScore> parts;
        for (const std::string& t : g.tasks)
          for (const auto& [c, s] : scores_.at(t))
            if (c.filter == column.filter && c.metric == column.metric) parts.push_back(s);
        if (parts.size() == g.tasks.size()) put_score(r, column, pooled_score(parts));
      }
    }
    return scores;
  }

  const infer::Engine& engine_;
  const infer::TextModel& text_;
  const std::vector<AskedTask>& tasks_;
  const EvaluationOptions& o_;
  const std::atomic<bool>& cancel_;
  nlohmann::json results_ = nlohmann::json::object(), versions_ = nlohmann::json::object(),
                 shots_ = nlohmann::json::object(), documents_ = nlohmann::json::object();
  std::map<std::string, std::vector<std::pair<ScoreColumn, MeanScore>>> scores_;
  std::vector<report::TaskSamples> samples_;
  AskCounts total_;
};

}  // namespace

std::vector<AskedTask> questions_of(const TaskSet& set, const Selection& selection) {
  std::vector<AskedTask> asked;
  for (const Task& task : set.tasks) {
    asked.push_back({task, task.questions(selection)});
    if (asked.back().questions.empty())
      throw Error("eval", task.name + ": no document is selected of " + std::to_string(task.documents()),
                  "raise --limit, or name documents by --docs");
  }
  return asked;
}

int64_t most_tokens(const std::vector<AskedTask>& tasks, const std::optional<int64_t>& max_tokens) {
  constexpr size_t kAround = 64;  // of a text or a turn, by tokenizer and chat format
  size_t most = 0;
  for (const AskedTask& a : tasks)
    for (const Question& q : a.questions) {
      size_t context = q.context.size() + kAround;
      for (const Turn& t : q.turns) context += t.content.size() + kAround;
      size_t answer = std::max(q.answer.size(), static_cast<size_t>(max_tokens.value_or(a.task.max_tokens)));
      for (const std::string& c : q.continuations) answer = std::max(answer, c.size());
      most = std::max(most, context + answer);
    }
  return static_cast<int64_t>(most);
}

nlohmann::json evaluate(const infer::Engine& engine, const infer::TextModel& text, const std::vector<AskedTask>& tasks,
                        const std::vector<TaskGroup>& groups, const EvaluationOptions& options,
                        const std::atomic<bool>& cancel) {
  return EvaluationRun(engine, text, tasks, options, cancel).run(groups);
}

}  // namespace birkhoff::eval
