#include "text/chat/answer_parser.h"

#include "core/error.h"
#include "text/chat/call_block.h"
#include "text/chat/dsml.h"
#include "text/jinja/json_value.h"

namespace birkhoff::text::chat {
namespace {

std::unique_ptr<CallBlock> block_of(const std::string& family) {
  if (family.empty()) return nullptr;
  if (family == "v3" || family == "v3.1") return token_block(family == "v3");
  if (family == "v3.2") return dsml_block("function_calls");
  if (family == "v4") return dsml_block("tool_calls");
  throw Error("chat", "no parser named '" + family.substr(0, 40) + "'", "there are v3, v3.1, v3.2 and v4",
              ExitCode::usage);
}

// Longest end of text that is a beginning of word, the whole word included.
size_t overlap(std::string_view text, std::string_view word) {
  for (size_t n = std::min(text.size(), word.size()); n > 0; --n)
    if (text.substr(text.size() - n) == word.substr(0, n)) return n;
  return 0;
}

// What a model writes need not be JSON: then it stays text.
Value object_or_text(const std::string& arguments) {
  try {
    if (Value parsed = parse_json(arguments); parsed.is(Kind::dict)) return parsed;
  } catch (const Error&) {
  }
  return Value::string(arguments);
}

Value list_of(const std::vector<ToolCall>& calls, bool object_arguments) {
  std::vector<Value> list;
  for (const ToolCall& call : calls) {
    auto function = std::make_shared<DictObject>();
    function->set("name", Value::string(call.name));
    function->set("arguments", object_arguments ? object_or_text(call.arguments) : Value::string(call.arguments));
    auto one = std::make_shared<DictObject>();
    one->set("type", Value::string("function"));
    one->set("function", Value::dict(std::move(function)));
    list.push_back(Value::dict(std::move(one)));
  }
  return Value::list(std::move(list));
}

}  // namespace

AnswerParser::AnswerParser(const std::string& family, bool thinking)
    : block_(block_of(family)), thinking_(thinking), blank_line_(family == "v3.2" || family == "v4") {}
AnswerParser::~AnswerParser() = default;
AnswerParser::AnswerParser(AnswerParser&&) noexcept = default;

Answer AnswerParser::feed(std::string_view piece) {
  buffer_ += piece;
  run(false);
  return std::exchange(delta_, {});
}

Answer AnswerParser::finish() {
  run(true);
  return std::exchange(delta_, {});
}

void AnswerParser::run(bool last) {
  while (step(last)) {
  }
  drop_consumed();
}

bool AnswerParser::step(bool last) {
  switch (state_) {
    case State::start:
      return start(last);
    case State::reasoning:
    case State::content:
      return text(last);
    case State::block:
      return block(last);
  }
  return false;
}

bool AnswerParser::start(bool last) {
  const std::string_view rest = std::string_view(buffer_).substr(at_);
  if (rest.size() < kThink.size() && kThink.starts_with(rest) && !last) return false;
  const bool opened = rest.starts_with(kThink);
  if (opened) at_ += kThink.size();
  state_ = opened || thinking_ ? State::reasoning : State::content;
  scanned_ = at_;
  return true;
}

// Bytes at the end of rest that may turn out to be a marker.
size_t AnswerParser::held_back(std::string_view rest) const {
  size_t held = overlap(rest, kEos);
  if (state_ == State::reasoning) return std::max(held, overlap(rest, kEndThink));
  if (!block_) return held;
  if (blank_line_) held = std::max(held, overlap(rest, "\n\n" + block_->open()));
  return std::max(held, overlap(rest, block_->open()));
}

bool AnswerParser::text(bool last) {
  const bool thinking = state_ == State::reasoning;
  const std::string_view marker = thinking ? kEndThink : block_ ? std::string_view(block_->open()) : std::string_view();
  const size_t found = marker.empty() ? std::string::npos : buffer_.find(marker, scanned_);
  if (found != std::string::npos) {
    if (thinking) {
      emit(std::string_view(buffer_).substr(at_, found - at_));
      at_ = scanned_ = found + marker.size();
      state_ = State::content;
      return true;
    }
    const bool blank = blank_line_ && found >= at_ + 2 && buffer_.compare(found - 2, 2, "\n\n") == 0;
    emit(std::string_view(buffer_).substr(at_, found - at_ - (blank ? 2 : 0)));
    at_ = found - (blank ? 2 : 0);
    block_at_ = found + marker.size();
    block_->reset();
    state_ = State::block;
    return true;
  }
  std::string_view rest = std::string_view(buffer_).substr(at_);
  if (last) {
    if (rest.ends_with(kEos)) rest.remove_suffix(kEos.size());
    emit(rest);
    at_ = scanned_ = buffer_.size();
    return false;
  }
  const size_t held = held_back(rest);
  emit(rest.substr(0, rest.size() - held));
  at_ = buffer_.size() - held;
  scanned_ = at_;
  return false;
}

bool AnswerParser::block(bool last) {
  size_t committed = at_;
  std::vector<ToolCall> calls;
  const Progress progress = block_->advance(buffer_, block_at_, committed, calls);
  for (const ToolCall& call : calls) {
    delta_.calls.push_back(call);
    all_.calls.push_back(call);
  }
  at_ = committed;
  if (progress == Progress::more) {
    if (!last) return false;
    // Cut off inside a call: what there is stays text.
    std::string_view rest = std::string_view(buffer_).substr(at_);
    if (rest.ends_with(kEos)) rest.remove_suffix(kEos.size());
    state_ = State::content;
    emit(rest);
    at_ = buffer_.size();
    return false;
  }
  state_ = State::content;
  if (progress == Progress::malformed) emit(std::string_view(buffer_).substr(at_, block_at_ - at_));
  at_ = scanned_ = block_at_;
  return true;
}

void AnswerParser::emit(std::string_view text) {
  if (state_ == State::reasoning) {
    delta_.reasoning += text;
    all_.reasoning += text;
  } else {
    delta_.content += text;
    all_.content += text;
  }
}

void AnswerParser::drop_consumed() {
  constexpr size_t kKeep = 4096;
  if (at_ < kKeep || at_ < buffer_.size() / 2) return;
  buffer_.erase(0, at_);
  scanned_ -= std::min(scanned_, at_);
  block_at_ -= std::min(block_at_, at_);
  if (block_) block_->shift(at_);
  at_ = 0;
}

Value Answer::to_message() const {
  auto message = std::make_shared<DictObject>();
  message->set("role", Value::string("assistant"));
  message->set("content", Value::string(content));
  message->set("reasoning_content", Value::string(reasoning));
  message->set("tool_calls", list_of(calls, false));
  return Value::dict(std::move(message));
}

Value Answer::to_history(bool object_arguments) const {
  auto message = std::make_shared<DictObject>();
  message->set("role", Value::string("assistant"));
  message->set("content", content.empty() && !calls.empty() ? Value::none() : Value::string(content));
  if (!reasoning.empty()) message->set("reasoning_content", Value::string(reasoning));
  if (!calls.empty()) message->set("tool_calls", list_of(calls, object_arguments));
  return Value::dict(std::move(message));
}

bool thinking_of(const Value& options) {
  if (options.is(Kind::undefined) || options.is(Kind::none)) return false;
  if (!options.is(Kind::dict)) throw Error("chat", std::string("options must be an object, not ") + type_name(options));
  const Value mode = get(options, "thinking_mode");
  if (!mode.is(Kind::undefined)) {
    if (!mode.is(Kind::string) || (mode.bytes() != "thinking" && mode.bytes() != "chat"))
      throw Error("chat", "invalid thinking_mode", "it is \"chat\" or \"thinking\"");
    return mode.bytes() == "thinking";
  }
  return truth(get(options, "thinking")) || truth(get(options, "enable_thinking"));
}

}  // namespace birkhoff::text::chat
