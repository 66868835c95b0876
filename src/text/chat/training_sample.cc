#include "text/chat/training_sample.h"

#include <algorithm>

#include "core/error.h"

namespace birkhoff::text::chat {
namespace {

struct Range {
  size_t begin = 0, end = 0;  // bytes of the text that holds the turn
};

Value with_flag(const Value& options, const char* key, bool flag) {
  auto out = std::make_shared<DictObject>();
  if (options.is(Kind::dict))
    for (const auto& [name, value] : options.as_dict().entries) out->set(name, value);
  out->set(key, Value::boolean(flag));
  return Value::dict(std::move(out));
}

bool is_assistant(const Value& message) {
  const Value role = get(message, "role");
  return role.is(Kind::string) && role.bytes() == "assistant";
}

class Renderer {
 public:
  Renderer(const ChatFormat& format, const Value& messages, const Value& tools, const Value& options)
      : format_(format),
        items_(messages.items()),
        tools_(tools),
        native_(format.encoder() != ChatFormat::Encoder::none),
        options_(options) {
    const bool given = options.is(Kind::dict) && !options.as_dict().entries.empty();
    const auto reasons = [](const Value& m) { return truth(get(m, "reasoning_content")); };
    if (native_ && !given)
      options_ = with_flag(options, "thinking", std::any_of(items_.begin(), items_.end(), reasons));
  }
  // The first n messages; invite: with the generation prompt behind them.
  MaskedText operator()(size_t n, bool invite) const {
    const std::vector<Value> first(items_.begin(), items_.begin() + static_cast<std::ptrdiff_t>(n));
    return format_.render(Value::list(first), tools_,
                          native_ ? options_ : with_flag(options_, "add_generation_prompt", invite));
  }

 private:
  const ChatFormat& format_;
  const std::vector<Value>& items_;
  const Value& tools_;
  const bool native_;
  Value options_;
};

// Where the tag begins that ends behind `at` (of "</think>" the '<', for a place within it); `at` itself when that lies
// in none. Tags are what formats write their special tokens as: <...> or [...] on one line.
size_t out_of_tag(const MaskedText& text, size_t at) {
  for (size_t i = at; i > 0 && !text.marked_at(i - 1); --i) {
    const char c = text.bytes()[i - 1];
    if (c == '<' || c == '[') return i - 1;
    if (c == '>' || c == ']' || c == '\n') break;
  }
  return at;
}

// The turn of the assistant at the end of text, given the prompt that asked for it. false: the prompt is not what text
// begins with. Marks of the generation prompt that the finished turn does not have (an opened thought) may differ. The
// turn then begins where they part, which is neither within a special token (<think> and </think> have a first letter
// in common) nor within the answer ("<b>" has it, too, but as content).
bool find_turn(const MaskedText& prompt, const MaskedText& text, Range& turn) {
  const std::string &p = prompt.bytes(), &t = text.bytes();
  size_t at = 0;
  while (at < p.size() && at < t.size() && p[at] == t[at] && prompt.marked_at(at) == text.marked_at(at)) ++at;
  for (size_t i = at; i < p.size(); ++i)
    if (prompt.marked_at(i)) return false;
  if (at < p.size() && at < t.size()) {
    while (at > 0 && (static_cast<unsigned char>(t[at]) & 0xc0) == 0x80) --at;
    if (!text.marked_at(at)) at = out_of_tag(text, at);
  }
  turn = {at, t.size()};
  return at < t.size();
}

// Cuts what the format writes behind the end token.
void end_at_token(const MaskedText& text, const std::string& eos, Range& turn, SampleNotes& notes) {
  for (size_t at = eos.empty() ? std::string::npos : text.bytes().rfind(eos);
       at != std::string::npos && at >= turn.begin; at = text.bytes().rfind(eos, at - 1)) {
    if (!text.marked_at(at)) {
      turn.end = at + eos.size();
      return;
    }
    if (at == 0) break;
  }
  ++notes.without_end;
}

TrainingSample cut(const MaskedText& text, const std::vector<Range>& turns) {
  TrainingSample out;
  size_t at = 0;
  const auto add = [&](size_t begin, size_t end, bool learn) {
    if (begin < end) out.push_back({text.sub(begin, end), learn});
  };
  for (const Range& turn : turns) {
    add(at, turn.begin, false);
    add(turn.begin, turn.end, true);
    at = turn.end;
  }
  return out;  // what follows the last turn teaches nothing
}

}  // namespace

std::vector<TrainingSample> training_samples(const ChatFormat& format, const Value& messages, const Value& tools,
                                             const Value& options, SampleNotes& notes) {
  if (!messages.is_sequence()) throw Error("chat", std::string("messages must be a list, not ") + type_name(messages));
  const Renderer render(format, messages, tools, options);
  const size_t n = messages.items().size();
  const MaskedText whole = render(n, false);
  std::vector<TrainingSample> out;
  std::vector<Range> turns;  // of whole
  for (size_t i = 0; i < n; ++i) {
    if (!is_assistant(messages.items()[i])) continue;
    ++notes.turns;
    const MaskedText prompt = render(i, true), text = i + 1 == n ? whole : render(i + 1, false);
    Range turn;
    if (!find_turn(prompt, text, turn)) {
      ++notes.rewritten;
      continue;
    }
    end_at_token(text, format.eos(), turn, notes);
    const std::string_view upto = std::string_view(text.bytes()).substr(0, turn.end);
    if (std::string_view(whole.bytes()).starts_with(upto) && (turns.empty() || turns.back().end <= turn.begin))
      turns.push_back(turn);
    else
      out.push_back(cut(text, {turn}));
  }
  if (!turns.empty()) out.push_back(cut(whole, turns));
  return out;
}

}  // namespace birkhoff::text::chat
