#include "text/chat/dsml.h"

#include "core/error.h"
#include "text/jinja/json_value.h"
#include "text/jinja/python_print.h"

namespace birkhoff::text::chat::dsml {
namespace {

void append_parameter(MaskedText& out, const MaskedText& key, const Value& value) {
  const bool text = value.is(Kind::string);
  out.append("<");
  out.append(kDsml);
  out.append("parameter name=\"");
  out.append(key);
  out.append(text ? "\" string=\"true\">" : "\" string=\"false\">");
  out.append(text ? value.text() : json_dump(value));
  out.append("</");
  out.append(kDsml);
  out.append("parameter>");
}

// Arguments come as JSON text (the API's form) or already as an object.
Value read_arguments(const Value& arguments, bool raw_arguments, size_t i) {
  if (arguments.is(Kind::dict)) return arguments;
  if (!arguments.is(Kind::string))
    refuse(i, std::string("arguments of a tool call must be JSON text or an object, not ") + type_name(arguments));
  Value parsed;
  std::string complaint;
  try {
    parsed = parse_json(arguments.bytes(), arguments.text().marked());
  } catch (const Error& e) {
    if (!raw_arguments) refuse(i, std::string("arguments of a tool call: ") + e.what());
    auto whole = std::make_shared<DictObject>();
    whole->set("arguments", arguments);
    return Value::dict(std::move(whole));
  }
  if (!parsed.is(Kind::dict))
    refuse(i, std::string("arguments of a tool call must be a JSON object, not ") + type_name(parsed));
  return parsed;
}

}  // namespace

void refuse(size_t index, const std::string& what, const std::string& hint) {
  throw Error("chat", "message " + std::to_string(index) + ": " + what, hint);
}

size_t count(const Value& messages) {
  if (!messages.is_sequence()) throw Error("chat", std::string("messages must be a list, not ") + type_name(messages));
  return messages.items().size();
}

const std::string& role_of(const Value& messages, size_t i) {
  const Value& message = messages.items()[i];
  if (!message.is(Kind::dict)) refuse(i, std::string("an object was expected, not ") + type_name(message));
  const Value* role = message.as_dict().find("role");
  if (!role || !role->is(Kind::string)) refuse(i, "it has no role");
  return role->bytes();
}

MaskedText text_of(const Value& message, std::string_view key, size_t i) {
  const Value v = get(message, key);
  if (v.is(Kind::string)) return v.text();
  if (v.is(Kind::undefined) || v.is(Kind::none)) return {};
  if (!v.is_sequence()) refuse(i, std::string(key) + " must be text, not " + type_name(v));
  MaskedText out;
  for (const Value& part : v.items()) {
    const Value type = get(part, "type"), text = get(part, "text");
    if (!type.is(Kind::string) || type.bytes() != "text" || !text.is(Kind::string))
      refuse(i, std::string(key) + " holds a part that is not text", "this model reads text alone");
    if (!out.empty()) out.append("\n\n");
    out.append(text.text());
  }
  return out;
}

MaskedText schemas(const Value& tools, size_t i) {
  if (!tools.is_sequence()) refuse(i, std::string("tools must be a list, not ") + type_name(tools));
  MaskedText out;
  for (size_t k = 0; k < tools.items().size(); ++k) {
    const Value function = get(tools.items()[k], "function");
    if (!function.is(Kind::dict))
      refuse(i, "tool " + std::to_string(k) + " has no function",
             "tools are {\"type\": \"function\", \"function\": {...}}");
    if (k) out.append("\n");
    out.append(json_dump(function));
  }
  return out;
}

MaskedText calls_block(const Value& tool_calls, std::string_view block, bool raw_arguments, size_t i) {
  if (!tool_calls.is_sequence()) refuse(i, std::string("tool_calls must be a list, not ") + type_name(tool_calls));
  const auto tag = [](MaskedText& out, const char* open, std::string_view name) {
    out.append(open);
    out.append(kDsml);
    out.append(name);
  };
  MaskedText out;
  tag(out, "<", block);
  out.append(">\n");
  for (const Value& call : tool_calls.items()) {
    const Value function = get(call, "function"), name = get(function, "name");
    if (!name.is(Kind::string)) refuse(i, "a tool call has no function name");
    tag(out, "<", "invoke name=\"");
    out.append(name.text());
    out.append("\">\n");
    bool first = true;
    const Value arguments = read_arguments(get(function, "arguments"), raw_arguments, i);
    for (const auto& [key, value] : arguments.as_dict().entries) {
      if (!first) out.append("\n");
      first = false;
      append_parameter(out, python_str(key), value);
    }
    out.append("\n");
    tag(out, "</", "invoke>\n");
  }
  tag(out, "</", block);
  out.append(">");
  return out;
}

void append_response_format(MaskedText& out, const Value& message) {
  const Value format = get(message, "response_format");
  if (!truth(format)) return;
  out.append("\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n");
  out.append(json_dump(format));
}

bool is_question(const Value& message) {
  const Value role = get(message, "role");
  return role.is(Kind::string) && (role.bytes() == "user" || role.bytes() == "developer");
}

int64_t last_question(const std::vector<Value>& messages) {
  for (size_t i = messages.size(); i-- > 0;)
    if (is_question(messages[i])) return static_cast<int64_t>(i);
  return -1;
}

}  // namespace birkhoff::text::chat::dsml
