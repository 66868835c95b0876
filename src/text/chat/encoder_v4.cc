#include <algorithm>
#include <unordered_map>

#include "core/error.h"
#include "text/chat/dsml.h"
#include "text/chat/encoder.h"
#include "text/jinja/python_print.h"

namespace birkhoff::text::chat {
namespace {

constexpr std::string_view kMaxEffort =
    "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n"
    "You MUST be very thorough in your thinking and comprehensively decompose the problem to resolve the root cause, "
    "rigorously "
    "stress-testing your logic against all potential paths, edge cases, and adversarial scenarios.\n"
    "Explicitly write out your entire deliberation process, documenting every intermediate step, considered "
    "alternative, and rejected "
    "hypothesis to ensure absolutely no assumption is left unchecked.\n\n";
constexpr std::string_view kV4ToolsHead =
    "## Tools\n\n"
    "You have access to a set of tools to help answer the user's question. You can invoke tools by writing a "
    "\"<｜DSML｜tool_calls>\" "
    "block like the following:\n\n"
    "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"$TOOL_NAME\">\n"
    "<｜DSML｜parameter name=\"$PARAMETER_NAME\" string=\"true|false\">$PARAMETER_VALUE</｜DSML｜parameter>\n...\n"
    "</｜DSML｜invoke>\n<｜DSML｜invoke name=\"$TOOL_NAME2\">\n...\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>\n\n"
    "String parameters should be specified as is and set `string=\"true\"`. For all other types (numbers, booleans, "
    "arrays, objects), "
    "pass the value in JSON format and set `string=\"false\"`.\n\n"
    "If thinking_mode is enabled (triggered by <think>), you MUST output your complete reasoning inside "
    "<think>...</think> BEFORE any "
    "tool calls or final response.\n\n"
    "Otherwise, output directly after </think> with tool calls or final response.\n\n"
    "### Available Tool Schemas\n\n";
constexpr std::string_view kV4ToolsTail =
    "\n\nYou MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.\n";

struct Block {
  bool result = false;
  std::string call_id;
  MaskedText text;
};

// A message after results were merged into user messages.
struct Turn {
  size_t index = 0;  // of the message it begins with
  std::string role;
  Value message;
  std::vector<Block> blocks;  // of user turns, at least one
  Value task;                 // none, or text
};

Value task_of(const Value& message) {
  const Value task = get(message, "task");
  return task.is(Kind::undefined) ? Value::none() : task;
}

MaskedText result_text(const Value& message, size_t i) {
  const Value content = get(message, "content");
  if (content.is(Kind::none)) return MaskedText("None");  // the reference formats the value
  if (!content.is_sequence()) return dsml::text_of(message, "content", i);
  MaskedText out;
  for (const Value& part : content.items()) {
    if (&part != &content.items().front()) out.append("\n\n");
    const Value type = get(part, "type");
    if (type.is(Kind::string) && type.bytes() == "text") {
      out.append(python_str(get(part, "text")));
    } else {
      out.append("[Unsupported ");
      out.append(type.is(Kind::undefined) ? MaskedText("None") : python_str(type));
      out.append("]");
    }
  }
  return out;
}

// Results become blocks of the user turn before them; user messages in a row join, unless the first is a task.
std::vector<Turn> merge(const Value& messages) {
  std::vector<Turn> turns;
  const size_t n = dsml::count(messages);
  for (size_t i = 0; i < n; ++i) {
    const std::string& role = dsml::role_of(messages, i);
    const Value& message = messages.items()[i];
    const bool behind_user = !turns.empty() && turns.back().role == "user";
    if (role == "tool") {
      if (!behind_user) turns.push_back({i, "user", Value(), {}, Value::none()});
      const Value id = get(message, "tool_call_id");
      turns.back().blocks.push_back({true, id.is(Kind::string) ? id.bytes() : "", result_text(message, i)});
    } else if (role == "user") {
      if (!behind_user || !turns.back().task.is(Kind::none)) turns.push_back({i, role, Value(), {}, task_of(message)});
      turns.back().blocks.push_back({false, "", dsml::text_of(message, "content", i)});
    } else {
      turns.push_back({i, role, message, {}, task_of(message)});
    }
  }
  return turns;
}

// Results in the order of the calls of the last assistant turn, whatever order they arrived in.
void sort_results(std::vector<Turn>& turns) {
  std::unordered_map<std::string, size_t> order;
  for (Turn& turn : turns) {
    const Value calls = turn.role == "assistant" ? get(turn.message, "tool_calls") : Value();
    if (truth(calls) && calls.is_sequence()) {
      order.clear();
      for (size_t k = 0; k < calls.items().size(); ++k) {
        Value id = get(calls.items()[k], "id");
        if (!truth(id)) id = get(get(calls.items()[k], "function"), "id");
        if (id.is(Kind::string) && truth(id)) order[id.bytes()] = k;
      }
    }
    if (turn.role != "user" || order.empty()) continue;
    std::vector<Block> results;
    for (const Block& block : turn.blocks)
      if (block.result) results.push_back(block);
    const auto place = [&order](const Block& b) {
      const auto it = order.find(b.call_id);
      return it == order.end() ? size_t{0} : it->second;
    };
    std::stable_sort(results.begin(), results.end(),
                     [&](const Block& a, const Block& b) { return place(a) < place(b); });
    size_t next = 0;
    for (Block& block : turn.blocks)
      if (block.result) block = std::move(results[next++]);
  }
}

class V4Writer {
 public:
  V4Writer(std::vector<Turn> turns, const EncoderOptions& options, bool drop)
      : turns_(std::move(turns)), options_(options), drop_(drop) {
    for (size_t i = 0; i < turns_.size(); ++i)
      if (turns_[i].role == "user" || turns_[i].role == "developer") last_ = static_cast<int64_t>(i);
  }

  MaskedText run() {
    MaskedText out;
    if (options_.bos) out.append(kBos);
    for (size_t i = 0; i < turns_.size(); ++i) {
      if (i == 0 && options_.thinking && options_.max_effort) out.append(kMaxEffort);
      write(i, out);
      if (i + 1 == turns_.size() || turns_[i + 1].role == "assistant" || turns_[i + 1].role == "latest_reminder")
        open_answer(i, out);
    }
    return out;
  }

 private:
  void write(size_t i, MaskedText& out) const {
    const Turn& turn = turns_[i];
    if (turn.role == "system") {
      out.append(dsml::text_of(turn.message, "content", turn.index));
      append_tools(turn, out);
      dsml::append_response_format(out, turn.message);
    } else if (turn.role == "developer") {
      const MaskedText content = dsml::text_of(turn.message, "content", turn.index);
      if (content.empty()) dsml::refuse(turn.index, "a developer message without content");
      out.append(kUser);
      out.append(content);
      append_tools(turn, out);
      dsml::append_response_format(out, turn.message);
    } else if (turn.role == "user") {
      out.append(kUser);
      for (const Block& block : turn.blocks) {
        if (&block != &turn.blocks.front()) out.append("\n\n");
        if (block.result) out.append("<tool_result>");
        out.append(block.text);
        if (block.result) out.append("</tool_result>");
      }
    } else if (turn.role == "latest_reminder") {
      out.append("<｜latest_reminder｜>");
      const Value content = get(turn.message, "content");
      out.append(content.is(Kind::none) || content.is(Kind::undefined)
                     ? MaskedText("None")
                     : dsml::text_of(turn.message, "content", turn.index));
    } else if (turn.role == "assistant") {
      write_assistant(i, out);
    } else {
      dsml::refuse(turn.index, "unknown role '" + turn.role.substr(0, 40) + "'",
                   "V4 knows system, developer, user, assistant, tool and latest_reminder");
    }
  }

  static void append_tools(const Turn& turn, MaskedText& out) {
    const Value tools = get(turn.message, "tools");
    if (!truth(tools)) return;
    out.append("\n\n");
    out.append(kV4ToolsHead);
    out.append(dsml::schemas(tools, turn.index));
    out.append(kV4ToolsTail);
  }

  void write_assistant(size_t i, MaskedText& out) const {
    const Turn& turn = turns_[i];
    const bool answers_task = i > 0 && !turns_[i - 1].task.is(Kind::none);
    if (options_.thinking && !answers_task && (!drop_ || static_cast<int64_t>(i) > last_)) {
      out.append(dsml::text_of(turn.message, "reasoning_content", turn.index));
      out.append(kEndThink);
    }
    out.append(dsml::text_of(turn.message, "content", turn.index));
    const Value calls = get(turn.message, "tool_calls");
    if (truth(calls)) {
      out.append("\n\n");
      out.append(dsml::calls_block(calls, "tool_calls", true, turn.index));
    }
    if (!truth(get(turn.message, "wo_eos"))) out.append(kEos);
  }

  // What invites the model to speak: a task token, or the assistant token and the state of thinking.
  void open_answer(size_t i, MaskedText& out) const {
    const Turn& turn = turns_[i];
    if (!turn.task.is(Kind::none)) {
      static constexpr std::string_view kTasks[] = {"action", "query", "authority", "domain", "title", "read_url"};
      const std::string task = turn.task.is(Kind::string) ? turn.task.bytes() : "";
      if (std::find(std::begin(kTasks), std::end(kTasks), task) == std::end(kTasks))
        dsml::refuse(turn.index, "unknown task '" + task.substr(0, 40) + "'",
                     "tasks are action, query, authority, domain, title and read_url");
      if (task == "action") {
        out.append(kAssistant);
        out.append(options_.thinking ? kThink : kEndThink);
      }
      out.append("<｜" + task + "｜>");
    } else if (turn.role == "user" || turn.role == "developer") {
      out.append(kAssistant);
      out.append(options_.thinking && (!drop_ || static_cast<int64_t>(i) >= last_) ? kThink : kEndThink);
    }
  }

  std::vector<Turn> turns_;
  const EncoderOptions& options_;
  bool drop_;
  int64_t last_ = -1;
};

}  // namespace

MaskedText encode_v4(const Value& messages, const EncoderOptions& options) {
  std::vector<Turn> turns = merge(messages);
  sort_results(turns);
  bool drop = options.drop_thinking;
  for (const Turn& turn : turns)
    if (truth(get(turn.message, "tools"))) drop = false;  // conversations with tools keep their reasoning
  if (options.thinking && drop) {
    int64_t last = -1;
    for (size_t i = 0; i < turns.size(); ++i)
      if (turns[i].role == "user" || turns[i].role == "developer") last = static_cast<int64_t>(i);
    std::vector<Turn> kept;
    for (size_t i = 0; i < turns.size(); ++i) {
      const std::string& role = turns[i].role;
      // Developer messages before the last question are forgotten with the reasoning.
      if (static_cast<int64_t>(i) >= last || role == "user" || role == "system" || role == "latest_reminder" ||
          role == "assistant")
        kept.push_back(std::move(turns[i]));
    }
    turns = std::move(kept);
  }
  return V4Writer(std::move(turns), options, drop).run();
}

EncoderOptions read_encoder_options(const Value& options, bool v4) {
  EncoderOptions out;
  if (options.is(Kind::undefined) || options.is(Kind::none)) return out;
  if (!options.is(Kind::dict)) throw Error("chat", std::string("options must be an object, not ") + type_name(options));
  for (const auto& [key, value] : options.as_dict().entries) {
    const std::string name = key.bytes();
    const auto flag = [&, v = value] {
      if (!v.is(Kind::boolean)) throw Error("chat", "option " + name + " must be true or false");
      return v.as_int() != 0;
    };
    if (name == "thinking_mode") {
      if (!value.is(Kind::string) || (value.bytes() != "thinking" && value.bytes() != "chat"))
        throw Error("chat", "invalid thinking_mode " + json_dump(value).bytes().substr(0, 40),
                    "it is \"chat\" or \"thinking\"");
      out.thinking = value.bytes() == "thinking";
    } else if (name == "thinking" || name == "enable_thinking") {
      out.thinking = flag();
    } else if (name == "drop_thinking") {
      out.drop_thinking = flag();
    } else if (name == "add_default_bos_token") {
      out.bos = flag();
    } else if (name == "add_generation_prompt") {
      if (!flag())
        throw Error("chat", "add_generation_prompt cannot be false",
                    "the formats of V3.2 and V4 end a question with the invitation to answer");
    } else if (v4 && name == "reasoning_effort") {
      const std::string effort = value.is(Kind::string) ? value.bytes() : "";
      if (!value.is(Kind::none) && effort != "max" && effort != "high")
        throw Error("chat", "invalid reasoning_effort " + json_dump(value).bytes().substr(0, 40),
                    "it is \"high\", \"max\" or null");
      out.max_effort = effort == "max";
    } else {
      throw Error("chat", "unknown option " + name.substr(0, 40),
                  v4 ? "V4 knows thinking_mode, drop_thinking, reasoning_effort, add_default_bos_token"
                     : "V3.2 knows thinking_mode, drop_thinking, add_default_bos_token");
    }
  }
  return out;
}

}  // namespace birkhoff::text::chat
