// A conversation with a model in its own format: messages to prompt, prompt to tokens, tokens to a message.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "infer/generation.h"
#include "infer/session.h"
#include "infer/text_model.h"
#include "text/chat/answer_parser.h"
#include "text/chat/chat_format.h"

namespace birkhoff::infer {

struct ReplyOptions {
  SamplerOptions sampling;
  LogitsOptions logits;
  int64_t max_tokens = 0;  // 0: as many as there is room for
  bool thinking = false;   // passed on to the format
  int64_t draft = 0;       // as GenerationOptions
  DraftBy draft_by = DraftBy::ngram;
};

enum class ReplyEnd : uint8_t { finished, length, interrupted };

struct Reply {
  text::chat::Answer answer;
  ReplyEnd end = ReplyEnd::finished;
  int64_t prompt_tokens = 0, reused_tokens = 0, tokens = 0;
  int64_t drafted = 0, accepted = 0;
};

class Conversation {
 public:
  // The tokenizer is that of the engine's directory; so is the format unless one is given. Throws Error when it has
  // none.
  explicit Conversation(const Engine& engine, std::optional<text::chat::ChatFormat> format = std::nullopt);

  // The history, as JSON has it. clear() keeps the system message.
  const std::vector<text::chat::Value>& messages() const { return messages_; }
  void clear();
  void set_system(const std::string& text);  // "" removes it; starts over
  void set_tools(const text::chat::Value& tools) { tools_ = tools; }
  void add_user(const std::string& text);
  void add_tool_result(const std::string& text);
  // Takes the place of the history. Throws Error: a message that is no object with a "role".
  void load(const std::vector<text::chat::Value>& messages);
  void drop_last();  // takes back the last message

  // Lets the model answer and appends its message, also when stop became true in the middle, be it of the prompt.
  // on_delta receives what the answer grew by, in whole characters. Throws Error: the prompt does not fit, the format
  // refuses the messages.
  Reply reply(const ReplyOptions& options, const std::atomic<bool>& stop,
              const std::function<void(const text::chat::Answer&)>& on_delta);

 private:
  void keep_beginning(const std::vector<int32_t>& ids);

  const Engine& engine_;
  TextModel text_;
  text::chat::ChatFormat format_;
  std::optional<int32_t> turn_end_;  // the format's end of a turn, beside the ids that end every text
  bool object_arguments_;            // how the format wants calls
  std::vector<text::chat::Value> messages_;
  text::chat::Value tools_;
  std::unique_ptr<Session> session_;
};

}  // namespace birkhoff::infer
