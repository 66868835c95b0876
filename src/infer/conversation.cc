#include "infer/conversation.h"

#include <algorithm>

#include "core/error.h"
#include "text/chat/marked_encode.h"

namespace birkhoff::infer {
namespace {

using text::chat::DictObject;
using text::chat::Value;

Value message_of(const char* role, const std::string& content) {
  auto dict = std::make_shared<DictObject>();
  dict->set("role", Value::string(role));
  dict->set("content", Value::string(content));
  return Value::dict(std::move(dict));
}

}  // namespace

Conversation::Conversation(const Engine& engine, std::optional<text::chat::ChatFormat> format)
    : engine_(engine),
      text_(engine),
      format_(format ? std::move(*format) : text::chat::ChatFormat::open(engine.directory())),
      object_arguments_(format_.takes_object_arguments()) {
  if (!text_.tokenizer())
    throw Error("chat",
                engine.directory() + ": the model reads bytes, a conversation needs the tokens of a chat format",
                "put tokenizer.json beside the weights");
  if (!format_.eos().empty()) turn_end_ = text_.tokenizer()->id(format_.eos());
}

void Conversation::clear() {
  const bool system = !messages_.empty() && get(messages_[0], "role").bytes() == "system";
  messages_.resize(system ? 1 : 0);
}

void Conversation::set_system(const std::string& text) {
  messages_.clear();
  if (!text.empty()) messages_.push_back(message_of("system", text));
}

void Conversation::add_user(const std::string& text) { messages_.push_back(message_of("user", text)); }
void Conversation::add_tool_result(const std::string& text) { messages_.push_back(message_of("tool", text)); }
void Conversation::load(const std::vector<Value>& messages) {
  for (size_t i = 0; i < messages.size(); ++i)
    if (!get(messages[i], "role").is(text::chat::Kind::string))
      throw Error("chat",
                  "message " + std::to_string(i + 1) + " of " + std::to_string(messages.size()) +
                      " is no object with a \"role\"",
                  "messages are {\"role\": \"user\", \"content\": \"...\"} and the like");
  messages_ = messages;
}

void Conversation::drop_last() {
  if (!messages_.empty()) messages_.pop_back();
}

// Leaves in the session the beginning of ids that it held, short of all of them. A prompt that departs from what it
// read (formats forget old reasoning) goes back to there, or starts a new session where the model cannot.
void Conversation::keep_beginning(const std::vector<int32_t>& ids) {
  const int64_t room = engine_.max_positions();
  if (static_cast<int64_t>(ids.size()) >= room)
    throw Error(
        "chat",
        "the conversation has " + std::to_string(ids.size()) + " tokens, the model reads " + std::to_string(room),
        "/reset starts over");
  if (session_) {
    const auto held = session_->ids().first(std::min(session_->ids().size(), std::max<size_t>(ids.size(), 1) - 1));
    if (session_->rewind(std::mismatch(held.begin(), held.end(), ids.begin()).first - held.begin())) return;
  }
  session_.reset();  // its caches go before others are taken
  session_ = std::make_unique<Session>(engine_, room);
}

Reply Conversation::reply(const ReplyOptions& options, const std::atomic<bool>& stop,
                          const std::function<void(const text::chat::Answer&)>& on_delta) {
  const text::chat::MaskedText prompt =
      format_.render(Value::list(messages_), tools_, text::chat::prompt_options(format_, options.thinking));
  const std::vector<int32_t> ids = text::chat::encode_marked(*text_.tokenizer(), prompt);
  keep_beginning(ids);
  Reply reply;
  reply.prompt_tokens = static_cast<int64_t>(ids.size());
  reply.reused_tokens = session_->length();
  const int64_t room = engine_.max_positions() - reply.prompt_tokens;
  GenerationOptions g;
  g.sampling = options.sampling;
  g.logits = options.logits;
  g.max_tokens = options.max_tokens > 0 ? std::min(options.max_tokens, room) : room;
  g.turn_end = turn_end_;
  g.special = true;  // the parser looks for them
  g.follows_prompt = false;
  const auto read = static_cast<size_t>(session_->length());
  g.read_before = std::span(ids).first(read);
  g.draft = options.draft, g.draft_by = options.draft_by;
  text::chat::AnswerParser parser(format_.parser(), text::chat::opens_thought(prompt.bytes()));
  const Generated r = generate(*session_, &text_, std::span(ids).subspan(read), g, stop, [&](const GeneratedToken& t) {
    if (!t.ends) on_delta(parser.feed(t.text));
    return true;
  });
  on_delta(parser.feed(r.rest));
  on_delta(parser.finish());
  reply.tokens = r.tokens, reply.drafted = r.drafted, reply.accepted = r.accepted;
  reply.end = r.finish == Finish::cancelled ? ReplyEnd::interrupted
              : r.finish == Finish::length  ? ReplyEnd::length
                                            : ReplyEnd::finished;
  reply.answer = parser.answer();
  messages_.push_back(reply.answer.to_history(object_arguments_));
  return reply;
}

}  // namespace birkhoff::infer
