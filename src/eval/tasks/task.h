// Tasks of an evaluation: documents, what a model is asked about each, how its answers are judged. Task files and the
// forms of documents: docs/eval.md.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "eval/scoring/scoring.h"
#include "text/jinja/value.h"

namespace birkhoff::eval {

struct Turn {
  std::string role, content;  // "system", "user", "assistant"
};

// A document as a model is asked about it.
struct Question {
  int64_t doc_id = 0;                // its place in the split that is evaluated, from 0
  text::chat::Value document;        // a dict
  std::vector<int64_t> shots;        // rows of the few-shot pool, in the order they are shown; of written samples too
  std::string context;               // all that precedes the answer; "" in a conversation
  std::vector<Turn> turns;           // of a conversation, the answer not among them
  std::vector<std::string> choices;  // as acc_norm counts them; empty: the answer is generated
  std::vector<std::string> continuations;  // as they follow the context: delimiter and choice
  int64_t gold = -1;                       // index of the right choice
  std::string answer;                      // the right answer as it follows the context, delimiter included
  text::chat::Value references;            // what generated answers are judged by; the task's metric knows its form
};

// Which documents: the first ones (below 1: that share of all, rounded up), or these, in ascending order.
struct Selection {
  std::optional<double> limit;
  std::vector<int64_t> documents;
};

struct TaskOptions {
  std::string data_dir;              // where the files of task files are looked for
  std::string protocol = "harness";  // or "paper"
  std::optional<int64_t> shots;      // instead of the task's own
  bool conversation = false;         // shots become turns of a user and an assistant, Question::turns
  std::string system;                // prompt of the system
  bool sample = false;               // the few questions of our own writing that are compiled in, no data_dir
  uint64_t seed = 1234;              // of few-shot examples
};

// One task without parts: documents in a file of --data-dir, of a protocol.
class Task {
 public:
  std::string name, version, protocol;  // names of protocol "paper" end in "_paper"
  int64_t shots = 0;
  std::vector<std::string> remarks;  // what a reader of its figures should know: files that stand in for others
  std::vector<std::string> until;    // texts that end a generated answer
  int64_t max_tokens = 0;            // of one; 0: answers are chosen
  Scoring scoring;
  bool generates() const { return max_tokens > 0; }

  int64_t documents() const;  // of the split that is evaluated
  // In ascending order of doc_id; few-shot examples are those of one run over this selection. Throws Error naming file,
  // line and field.
  std::vector<Question> questions(const Selection& selection) const;

 private:
  friend struct TaskReader;
  struct Source;
  std::shared_ptr<const Source> source_;
};

// Reported together, weighted by documents.
struct TaskGroup {
  std::string name, version;
  std::vector<std::string> tasks;  // all its tasks, of subgroups too
};

struct TaskSet {
  std::vector<Task> tasks;        // each once, in the order they were asked for
  std::vector<TaskGroup> groups;  // that were asked for, with their subgroups
};

// names: tasks, groups, "all", or paths of task files (*.json). Throws Error: an unknown name with the nearest one;
// missing or malformed files.
TaskSet open_tasks(const std::vector<std::string>& names, const TaskOptions& options);

// What there is, of a protocol: for a list.
struct TaskListing {
  std::string name, version;
  int64_t shots = 0;
  std::optional<int64_t> documents;  // in options.data_dir; none: files are missing
};
std::vector<TaskListing> list_tasks(const TaskOptions& options);
std::vector<TaskGroup> list_groups(const TaskOptions& options);

// As the harness writes them beside a sample: SHA-256 of the document as JSON, and of the context.
std::string document_hash(const text::chat::Value& document);
std::string prompt_hash(const std::string& context);

}  // namespace birkhoff::eval
