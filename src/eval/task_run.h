// One task, asked of a model: questions to requests, requests to answers, answers to scores.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "eval/answer_store.h"
#include "eval/prompt_tokens.h"
#include "eval/tasks/task.h"
#include "text/chat/chat_format.h"

namespace birkhoff::eval {

struct AskOptions {
  int64_t max_length = 0;             // tokens of a question with its answer; longer ones lose their beginning
  std::optional<int64_t> max_tokens;  // of a generated answer, instead of the task's
  const text::chat::ChatFormat* format = nullptr;  // of tasks opened as conversations
  bool thinking = false;                           // before an answer, in a conversation; not judged
  std::string model;                               // what answers are kept by: content and settings
};

// Of a task so far.
struct AskCounts {
  int64_t requests = 0, kept = 0;  // all, and those whose answers were known
  int64_t cut = 0;                 // that lost their beginning
  int64_t answers_cut = 0;         // of these, those whose answer alone is longer than what the model reads
  int64_t prompt_tokens = 0;       // of all requests, each counted alone
  int64_t read_tokens = 0;         // that were run to score continuations or before an answer
  int64_t written_tokens = 0;
  double seconds = 0;  // of the model
};

struct ChoiceAnswer {
  ContinuationScore score;
  int64_t tokens = 0, cut = 0;
};

// What a model made of one question.
struct Answered {
  std::vector<ChoiceAnswer> choices;  // in their order
  std::vector<ChoiceAnswer> alone;    // the same after an empty context, of tasks that ask for it
  std::string text;                   // generated, up to the first stop string and without a thought
  int64_t text_tokens = 0, text_cut = 0;
  ChoiceAnswer right;  // the right answer as a continuation; without tokens where there is none
};

// Asks all questions, whole prefixes once, and keeps every answer in the store as it comes. advance(questions done) is
// called between passes. Fewer answers than questions: it was cancelled. Throws Error.
std::vector<Answered> ask(const infer::Engine& engine, const infer::TextModel& text, const Task& task,
                          const std::vector<Question>& questions, const AskOptions& options, AnswerStore& store,
                          AskCounts& counts, const std::function<void(int64_t)>& advance,
                          const std::atomic<bool>& cancel);

}  // namespace birkhoff::eval
