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

Value format_options(const text::chat::ChatFormat& format, bool thinking) {
  auto options = std::make_shared<DictObject>();
  options->set("add_generation_prompt", Value::boolean(true));
  if (format.encoder() == text::chat::ChatFormat::Encoder::none)
    options->set("enable_thinking", Value::boolean(thinking));
  options->set("thinking", Value::boolean(thinking));
  return Value::dict(std::move(options));
}

// Did the prompt end inside a thought?
bool opens_thought(const std::string& prompt) {
  const size_t end = prompt.find_last_not_of(" \n");
  constexpr std::string_view kThink = "<think>";
  return end != std::string::npos && std::string_view(prompt).substr(0, end + 1).ends_with(kThink);
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

// What the session holds is written down when it holds it: a failure on the way leaves no wrong beginning behind.
std::span<const float> Conversation::feed(std::span<const int32_t> ids) {
  const std::span<const float> logits = session_->feed(ids);
  fed_.insert(fed_.end(), ids.begin(), ids.end());
  return logits;
}

// Feeds what the session does not hold yet, until stop becomes true; the logits are then none. A prompt that departs
// from what the session holds (formats forget old reasoning) starts a new one.
std::span<const float> Conversation::feed_prompt(const std::vector<int32_t>& ids, const std::atomic<bool>& stop,
                                                 Reply& reply) {
  constexpr size_t kPiece = 256;  // between two looks at stop
  const int64_t room = engine_.max_positions();
  if (static_cast<int64_t>(ids.size()) >= room)
    throw Error(
        "chat",
        "the conversation has " + std::to_string(ids.size()) + " tokens, the model reads " + std::to_string(room),
        "/reset starts over");
  const bool whole = session_ && session_->length() == static_cast<int64_t>(fed_.size());
  if (!whole || fed_.size() >= ids.size() || !std::equal(fed_.begin(), fed_.end(), ids.begin())) {
    session_ = std::make_unique<Session>(engine_, room);
    fed_.clear();
  }
  reply.prompt_tokens = static_cast<int64_t>(ids.size());
  reply.reused_tokens = static_cast<int64_t>(fed_.size());
  std::span<const float> logits;
  while (fed_.size() < ids.size()) {
    if (stop) return {};
    logits = feed(std::span(ids).subspan(fed_.size(), std::min(kPiece, ids.size() - fed_.size())));
  }
  return logits;
}

Reply Conversation::reply(const ReplyOptions& options, const std::atomic<bool>& stop,
                          const std::function<void(const text::chat::Answer&)>& on_delta) {
  const text::chat::MaskedText prompt =
      format_.render(Value::list(messages_), tools_, format_options(format_, options.thinking));
  const std::vector<int32_t> ids = text::chat::encode_marked(*text_.tokenizer(), prompt);
  Reply reply;
  std::span<const float> logits = feed_prompt(ids, stop, reply);
  text::chat::AnswerParser parser(format_.parser(), opens_thought(prompt.bytes()));
  text::StreamDecoder decoder(text_.tokenizer());  // with special tokens: the parser looks for them
  const int64_t room = engine_.max_positions() - reply.prompt_tokens;
  const int64_t most = options.max_tokens > 0 ? std::min(options.max_tokens, room) : room;
  reply.end = ReplyEnd::length;
  while (reply.tokens < most) {
    if (stop) {
      reply.end = ReplyEnd::interrupted;
      break;
    }
    const int32_t id = text_.sample(logits, options.sampling, static_cast<uint64_t>(reply.tokens));
    ++reply.tokens;
    if (text_.ends(id) || id == turn_end_) {
      reply.end = ReplyEnd::finished;
      break;
    }
    on_delta(parser.feed(decoder.push(id)));
    if (reply.tokens == most) break;
    logits = feed({&id, 1});
  }
  on_delta(parser.feed(decoder.finish()));
  on_delta(parser.finish());
  reply.answer = parser.answer();
  messages_.push_back(reply.answer.to_history(object_arguments_));
  return reply;
}

}  // namespace birkhoff::infer
