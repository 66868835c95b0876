#include "eval/scoring/score_lines.h"

#include "core/error.h"
#include "eval/scoring/drop_f1.h"
#include "eval/scoring/hendrycks_math.h"
#include "eval/scoring/minerva_math.h"
#include "eval/scoring/python.h"
#include "text/jinja/json_value.h"
#include "text/jinja/python_print.h"
#include "text/unicode/utf8.h"

namespace birkhoff::eval {
namespace {

using text::chat::DictObject;
using text::chat::get;
using text::chat::Kind;
using text::chat::Value;

std::string field_text(const Value& line, const char* name) {
  const Value v = get(line, name);
  if (!v.is(Kind::string)) throw Error("eval", std::string("\"") + name + "\" must be a text");
  return v.bytes();
}

Value dict_of(std::shared_ptr<DictObject> d) { return Value::dict(std::move(d)); }

std::string json_line(const std::shared_ptr<DictObject>& d) {
  text::chat::JsonStyle style;
  style.ascii = true;
  return text::chat::json_dump(dict_of(d), style).bytes();
}

std::vector<std::string> until_of(const Value& line) {
  const Value until = get(line, "until");
  if (!until.is_sequence()) throw Error("eval", "\"until\" must be a list of texts");
  std::vector<std::string> out;
  for (const Value& one : until.items()) {
    if (!one.is(Kind::string)) throw Error("eval", "\"until\" must be a list of texts");
    out.push_back(one.bytes());
  }
  return out;
}

std::string function_output(const Value& line, const std::string& name) {
  const std::string input = field_text(line, "input");
  if (name == "hendrycks_strip_string") return hendrycks_strip_string(input);
  if (name == "minerva_normalize") return minerva_normalize(input);
  if (name == "drop_normalize") return drop_normalize(input);
  if (name == "cut_at_stops") return cut_at_stops(input, until_of(line));
  throw Error("eval", "no function is called \"" + name + "\"",
              "there are: hendrycks_strip_string, minerva_normalize, drop_normalize, cut_at_stops");
}

void score_function(const Value& line, DictObject& out) {
  try {
    out.set("output", Value::string(function_output(line, field_text(line, "function"))));
  } catch (const Raised& e) {
    out.set("raises", Value::string(e.type));
  }
}

Value filters_of(const std::vector<Judgement>& judgements) {
  auto filters = std::make_shared<DictObject>();
  for (const Judgement& j : judgements) {
    auto one = std::make_shared<DictObject>();
    const Value extracted = Value::string(j.extracted);
    // The harness keeps every sample of programs that continue a prompt.
    one->set("extracted", j.samples ? Value::list({extracted}) : extracted);
    for (const auto& [name, value] : j.metrics) one->set(name, Value::real(value));
    if (j.text_only) one->set("text_only", Value::boolean(true));
    filters->set(j.filter, dict_of(one));
  }
  return dict_of(filters);
}

}  // namespace

std::string LineScorer::score(const std::string& text, int64_t number) const {
  try {
    const Value line = text::chat::parse_json(text);
    if (!line.is(Kind::dict)) throw Error("eval", "a line must be a JSON object");
    auto out = std::make_shared<DictObject>();
    for (const auto& [key, value] : line.as_dict().entries) out->set(key, value);
    if (!get(line, "function").is(Kind::undefined)) {
      score_function(line, *out);
    } else {
      const std::string task = field_text(line, "task");
      const Scoring& scoring = scoring_(task);
      Value references = get(line, "references");
      if (references.is(Kind::undefined)) throw Error("eval", "\"references\" is missing");
      const Value doc_id = get(line, "doc_id");
      if (scoring.wants_prompt() && references.is(Kind::string)) {
        if (!doc_id.is(Kind::integer))
          throw Error("eval", "task " + task + " needs the prompt",
                      "give \"doc_id\", or references {\"prompt\", \"test\"}");
        references = references_(task, doc_id.as_int());
      }
      out->set("filters", filters_of(scoring.judge(references, field_text(line, "prediction"), run_)));
    }
    return json_line(out);
  } catch (const Error& e) {
    auto out = std::make_shared<DictObject>();
    out->set("line", Value::integer(number));
    out->set("error", Value::string(text::replace_invalid(e.said())));
    return json_line(out);
  }
}

}  // namespace birkhoff::eval
