#include "text/chat/call_block.h"

#include <algorithm>

#include "text/chat/dsml.h"
#include "text/jinja/python_print.h"

namespace birkhoff::text::chat {
namespace {

bool is_blank(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

// Search that remembers how far it looked, so that a growing buffer is read once.
struct Search {
  size_t from = 0;
  size_t find(const std::string& buffer, std::string_view what, size_t begin) {
    from = std::max(from, begin);
    const size_t found = buffer.find(what, from);
    if (found == std::string::npos && buffer.size() >= what.size())
      from = std::max(from, buffer.size() - what.size() + 1);
    return found;
  }
};

// Does buffer[at..] begin with word, not begin with it, or end before that is known?
Progress begins(const std::string& buffer, size_t at, std::string_view word) {
  const size_t known = std::min(buffer.size() - at, word.size());
  if (buffer.compare(at, known, word.substr(0, known)) != 0) return Progress::malformed;
  return known == word.size() ? Progress::done : Progress::more;
}

class DsmlBlock : public CallBlock {
 public:
  explicit DsmlBlock(const std::string& name)
      : open_("<" + std::string(kDsml) + name + ">"), close_("</" + std::string(kDsml) + name + ">") {}
  const std::string& open() const override { return open_; }
  void reset() override {
    state_ = State::block;
    search_ = {};
  }
  void shift(size_t bytes) override { search_.from -= std::min(search_.from, bytes); }

  Progress advance(const std::string& buffer, size_t& at, size_t& committed, std::vector<ToolCall>& calls) override {
    while (true) {
      const Progress p = step(buffer, at, committed, calls);
      if (p != Progress::done || finished_) {
        finished_ = false;
        return p;
      }
    }
  }

 private:
  enum class State : uint8_t { block, name, body, key, value };

  // done: one step further (finished_: the block is closed).
  Progress step(const std::string& buffer, size_t& at, size_t& committed, std::vector<ToolCall>& calls) {
    switch (state_) {
      case State::block:
        return choose(buffer, at, invoke_, State::name, close_, [&] { finished_ = true; });
      case State::name:
        return read_name(buffer, at);
      case State::body:
        return choose(buffer, at, parameter_, State::key, end_invoke_, [&] {
          calls.push_back({name_, arguments_ + "}"});
          committed = at;
          state_ = State::block;
        });
      case State::key:
        return read_key(buffer, at);
      case State::value:
        return read_value(buffer, at);
    }
    return Progress::malformed;
  }

  // Behind blanks, either of two tags.
  template <class OnSecond>
  Progress choose(const std::string& buffer, size_t& at, const std::string& first, State next,
                  const std::string& second, OnSecond&& on_second) {
    while (at < buffer.size() && is_blank(buffer[at])) ++at;
    const Progress a = begins(buffer, at, first), b = begins(buffer, at, second);
    if (a == Progress::done) {
      at += first.size();
      state_ = next;
      search_.from = at;
      return a;
    }
    if (b == Progress::done) {
      at += second.size();
      on_second();
      return b;
    }
    return a == Progress::more || b == Progress::more ? Progress::more : Progress::malformed;
  }

  Progress read_name(const std::string& buffer, size_t& at) {
    const size_t end = search_.find(buffer, "\">", at);
    if (end == std::string::npos) return Progress::more;
    name_.assign(buffer, at, end - at);
    at = end + 2;
    arguments_ = "{";
    keys_.clear();
    state_ = State::body;
    return Progress::done;
  }

  // KEY" string="true|false">
  Progress read_key(const std::string& buffer, size_t& at) {
    constexpr std::string_view kString = "\" string=\"";
    while (true) {
      const size_t end = search_.find(buffer, kString, at);
      if (end == std::string::npos) return Progress::more;
      const size_t flag = end + kString.size();
      const Progress yes = begins(buffer, flag, "true\">"), no = begins(buffer, flag, "false\">");
      if (yes == Progress::done || no == Progress::done) {
        key_.assign(buffer, at, end - at);
        text_ = yes == Progress::done;
        at = flag + (text_ ? 6 : 7);
        search_.from = at;
        state_ = State::value;
        return Progress::done;
      }
      if (yes == Progress::more || no == Progress::more) return Progress::more;
      search_.from = flag;  // part of the key
    }
  }

  Progress read_value(const std::string& buffer, size_t& at) {
    const size_t end = search_.find(buffer, end_parameter_, at);
    if (end == std::string::npos) return Progress::more;
    if (std::find(keys_.begin(), keys_.end(), key_) != keys_.end() || keys_.size() >= kMaxKeys)
      return Progress::malformed;
    MaskedText json;
    json_string(MaskedText(key_), false, json);
    json.append(": ");
    const MaskedText value(buffer.substr(at, end - at));
    if (text_)
      json_string(value, false, json);
    else
      json.append(value);
    arguments_ += (keys_.empty() ? "" : ", ") + json.bytes();
    keys_.push_back(key_);
    at = end + end_parameter_.size();
    state_ = State::body;
    return Progress::done;
  }

  static constexpr size_t kMaxKeys = 256;  // bounds the search for duplicates
  const std::string open_, close_;
  const std::string invoke_ = "<" + std::string(kDsml) + "invoke name=\"",
                    end_invoke_ = "</" + std::string(kDsml) + "invoke>";
  const std::string parameter_ = "<" + std::string(kDsml) + "parameter name=\"",
                    end_parameter_ = "</" + std::string(kDsml) + "parameter>";
  State state_ = State::block;
  bool finished_ = false, text_ = false;
  Search search_;
  std::string name_, key_, arguments_;
  std::vector<std::string> keys_;
};

class TokenBlock : public CallBlock {
 public:
  explicit TokenBlock(bool fenced) : fenced_(fenced) {}
  const std::string& open() const override { return open_; }
  void reset() override {
    inside_ = false;
    search_ = {};
  }
  void shift(size_t bytes) override { search_.from -= std::min(search_.from, bytes); }

  Progress advance(const std::string& buffer, size_t& at, size_t& committed, std::vector<ToolCall>& calls) override {
    while (true) {
      if (!inside_) {
        while (at < buffer.size() && is_blank(buffer[at])) ++at;
        const Progress call = begins(buffer, at, call_), close = begins(buffer, at, close_);
        if (close == Progress::done) {
          at += close_.size();
          return Progress::done;
        }
        if (call == Progress::more || close == Progress::more) return Progress::more;
        if (call == Progress::malformed) return call;
        at += call_.size();
        search_.from = at;
        inside_ = true;
      }
      const size_t end = search_.find(buffer, end_call_, at);
      if (end == std::string::npos) return Progress::more;
      ToolCall parsed;
      const bool good = split(std::string_view(buffer).substr(at, end - at), parsed);
      at = end + end_call_.size();
      if (!good) return Progress::malformed;
      calls.push_back(std::move(parsed));
      committed = at;
      inside_ = false;
    }
  }

 private:
  bool split(std::string_view call, ToolCall& out) const {
    const size_t separator = call.find(separator_);
    if (separator == std::string_view::npos) return false;
    const std::string_view head = call.substr(0, separator);
    std::string_view rest = call.substr(separator + separator_.size());
    if (!fenced_) {
      out = {std::string(head), std::string(rest)};
      return true;
    }
    constexpr std::string_view kFence = "\n```json\n", kEnd = "\n```";
    const size_t fence = rest.find(kFence);
    if (fence == std::string_view::npos) return false;
    out.name = std::string(rest.substr(0, fence));
    rest = rest.substr(fence + kFence.size());
    if (!rest.ends_with(kEnd)) return false;
    out.arguments = std::string(rest.substr(0, rest.size() - kEnd.size()));
    return true;
  }

  const bool fenced_;
  const std::string open_ = "<｜tool▁calls▁begin｜>", close_ = "<｜tool▁calls▁end｜>";
  const std::string call_ = "<｜tool▁call▁begin｜>", end_call_ = "<｜tool▁call▁end｜>", separator_ = "<｜tool▁sep｜>";
  bool inside_ = false;
  Search search_;
};

}  // namespace

std::unique_ptr<CallBlock> dsml_block(const std::string& name) { return std::make_unique<DsmlBlock>(name); }
std::unique_ptr<CallBlock> token_block(bool fenced) { return std::make_unique<TokenBlock>(fenced); }

}  // namespace birkhoff::text::chat
