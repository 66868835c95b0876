#include "eval/tasks/task.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "eval/tasks/few_shot.h"
#include "eval/tasks/source.h"
#include "text/jinja/characters.h"
#include "text/unicode/utf8.h"

namespace birkhoff::eval {

namespace {

struct Message {
  std::string role, content, delimiter;  // behind it, where messages are joined to one text
};

bool begins_with_space(const std::string& s) {
  size_t i = 0;
  return !s.empty() && text::chat::is_space(text::chat::utf8_next(s, i));
}
bool ends_with_space(const std::string& s) { return !s.empty() && text::chat::is_space(text::last_char(s)); }

bool is_delimited(const std::string& before, const std::string& behind) {
  return ends_with_space(before) || begins_with_space(behind);
}

// Both, with the delimiter between them where there is no white space; one alone as it is.
std::string delimited(const std::string& before, const std::string& behind, const std::string& delimiter) {
  const bool needed = !before.empty() && !behind.empty() && !is_delimited(before, behind);
  return before + (needed ? delimiter : "") + behind;
}

// What build_qa_turn of the harness makes of a question, its answer ("": it is asked for) and the answer's beginning.
void add_turn(std::vector<Message>& messages, const std::string& question, const std::string& answer,
              const std::string& gen_prefix, const std::string& target_delimiter, const std::string& shot_delimiter) {
  const bool delimiter =
      gen_prefix.empty() ? !answer.empty() : !question.empty() && !is_delimited(question, gen_prefix);
  messages.push_back({"user", question, delimiter ? target_delimiter : ""});
  if (!answer.empty())
    messages.push_back({"assistant", delimited(gen_prefix, answer, " "), shot_delimiter});
  else if (!gen_prefix.empty())
    messages.push_back({"assistant", gen_prefix, ""});
}

// doc_ids in the order in which they are asked.
std::vector<int64_t> selected(const Selection& selection, int64_t documents, const std::string& task) {
  std::vector<int64_t> ids = selection.documents;
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  if (!ids.empty() && (ids.front() < 0 || ids.back() >= documents))
    throw Error("task",
                task + ": document " + std::to_string(ids.front() < 0 ? ids.front() : ids.back()) +
                    " of those that were asked for: there are 0 to " + std::to_string(documents - 1),
                "", ExitCode::usage);
  if (!ids.empty()) return ids;
  int64_t n = documents;
  if (selection.limit) {
    const double limit = *selection.limit;
    if (!(limit > 0))
      throw Error("task", "a limit of " + std::to_string(limit) + " documents", "at least 1, or a share below 1",
                  ExitCode::usage);
    n = static_cast<int64_t>(std::min(limit < 1 ? std::ceil(limit * static_cast<double>(documents)) : limit,
                                      static_cast<double>(documents)));
  }
  for (int64_t i = 0; i < n; ++i) ids.push_back(i);
  return ids;
}

// Asks about the documents of one task.
class Asker {
 public:
  Asker(const TaskDefinition& task, const TaskOptions& options) : task_(task), options_(options) {}

  void ask(const Document& d, const std::vector<const Shot*>& shots, Question& q) const {
    const std::string gen_prefix = task_.gen_prefix ? rendered(*task_.gen_prefix, d, "gen_prefix") : "";
    std::vector<Message> messages;
    const std::string description = task_.description ? rendered(*task_.description, d, "description") : "";
    const std::string system = delimited(options_.system, description, task_.fewshot_delimiter);
    if (!system.empty()) messages.push_back({"system", system, ""});
    for (const Shot* s : shots)
      add_turn(messages, s->text, s->target, s->gen_prefix, task_.target_delimiter, task_.fewshot_delimiter);
    add_turn(messages, rendered(*task_.text, d, "text"), "", gen_prefix, task_.target_delimiter, "");
    for (Message& m : messages)
      if (options_.conversation)
        q.turns.push_back({m.role, std::move(m.content)});
      else
        q.context += m.content + m.delimiter;
    // Behind a turn's beginning nothing is to be delimited.
    const bool delimiter = !options_.conversation || (!gen_prefix.empty() && !ends_with_space(gen_prefix));
    answers(d, delimiter ? task_.target_delimiter : "", q);
  }

 private:
  void answers(const Document& d, const std::string& delimiter, Question& q) const {
    std::string right;
    if (task_.choices) {
      q.choices = evaluated_texts(*task_.choices, d, "choices");
      q.gold = gold_index(task_, d, q.choices.size());
      for (const std::string& choice : q.choices) q.continuations.push_back(delimiter + choice);
      right = q.choices[static_cast<size_t>(q.gold)];
    } else {
      right = rendered(*task_.target, d, "target");
    }
    q.references = task_.references ? evaluated(*task_.references, d, "references") : text::chat::Value::string(right);
    q.answer = delimiter + (task_.answer ? rendered(*task_.answer, d, "answer") : right);
  }

  const TaskDefinition& task_;
  const TaskOptions& options_;
};

}  // namespace

int64_t Task::documents() const { return source_->documents; }

std::vector<Question> Task::questions(const Selection& selection) const {
  const Source& s = *source_;
  const Rows* rows = s.pool ? &*s.pool : s.stand_in.empty() ? nullptr : &s.rows;
  FewShotPool pool(s.definition, s.maker, s.shots > 0 ? rows : nullptr, s.pool ? 0 : s.documents);
  PythonRandom random(s.options.seed);
  const Asker asker(s.definition, s.options);
  std::vector<Question> questions;
  for (const int64_t i : selected(selection, s.documents, name)) {
    const Document d = s.maker.of_row(s.rows.row(i), s.rows.number(i), s.rows.place(i));
    Question q;
    q.doc_id = i;
    q.document = d.value;
    q.shots = pool.draw(random, s.shots, d.value);
    std::vector<const Shot*> shown;
    for (const int64_t k : q.shots) shown.push_back(&pool.shot(k));
    asker.ask(d, shown, q);
    questions.push_back(std::move(q));
  }
  return questions;
}

}  // namespace birkhoff::eval
