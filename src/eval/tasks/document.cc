#include "eval/tasks/document.h"

#include "core/error.h"
#include "eval/scoring/boxed.h"
#include "eval/scoring/minerva_math.h"
#include "text/jinja/jinja_interp.h"
#include "text/jinja/python_print.h"

namespace birkhoff::eval {

using text::chat::DictObject;
using text::chat::Kind;
using text::chat::Value;
namespace jinja = text::chat::jinja;

namespace {

template <std::string (*f)(std::string)>
Value text_function(jinja::Interp& in, const Value&, jinja::CallArgs& a) {
  const Value v = a.need(0, "text", "the function");
  if (!v.is(Kind::string)) in.fail(std::string("a text was expected, not ") + type_name(v));
  in.charge_search(64 * v.bytes().size(), 64);
  return in.string(f(v.bytes()));
}

std::string boxed(std::string solution) { return last_boxed(solution); }

Value function(const char* name, jinja::Builtin f) {
  auto object = std::make_shared<jinja::BuiltinObject>();
  object->function = f;
  object->name = name;
  object->max_args = 1;
  return Value::object(std::move(object));
}

// What expressions of tasks may call beside Jinja's own.
void add_functions(DictObject& scope) {
  scope.set("last_boxed", function("last_boxed", text_function<boxed>));
  scope.set("minerva_normalize", function("minerva_normalize", text_function<minerva_normalize>));
}

[[noreturn]] void failed(const Document& d, const std::string& field, const Error& e) {
  std::string fields;
  for (const auto& [key, value] : d.value.as_dict().entries) fields += (fields.empty() ? "" : ", ") + key.bytes();
  throw Error("data", d.place + ": " + field + ": " + e.said(), "the document has the fields " + fields);
}

}  // namespace

DocumentMaker::DocumentMaker(const TaskDefinition& task, DataFiles& files)
    : task_(task), base_(std::make_shared<DictObject>()) {
  add_functions(*base_);
  for (const auto& [key, value] : task.variables.as_dict().entries) base_->set(key, value);
  for (const auto& [name, file] : task.texts) base_->set(name, Value::string(files.text(file, "task " + task.name)));
}

std::shared_ptr<DictObject> DocumentMaker::scope_of(const Value& row) const {
  auto scope = std::make_shared<DictObject>();
  for (const DictObject* from : std::initializer_list<const DictObject*>{base_.get(), &row.as_dict()})
    for (const auto& [key, value] : from->entries) scope->set(key, value);
  return scope;
}

Document DocumentMaker::of_row(const Value& row, int64_t number, std::string place) const {
  Document d{row, scope_of(row), std::move(place)};
  if (!d.scope->find("row")) d.scope->set("row", Value::integer(number));
  if (task_.fields.empty()) return d;
  auto made = std::make_shared<DictObject>();
  for (const auto& [name, expression] : task_.fields) {
    Value v = evaluated(expression, d, name);
    if (name[0] != '_') made->set(name, v);
    d.scope->set(name, std::move(v));
  }
  d.value = Value::dict(std::move(made));
  return d;
}

Document DocumentMaker::of_sample(const Value& sample, std::string place) const {
  if (sample.is(Kind::dict)) return {sample, scope_of(sample), std::move(place)};
  auto row = std::make_shared<DictObject>();
  row->set("sample", sample);
  const Value dict = Value::dict(std::move(row));
  return {dict, scope_of(dict), std::move(place)};
}

std::string rendered(const jinja::Template& t, const Document& d, const char* field) {
  try {
    return t.render(*d.scope, kTaskLimits, 0).bytes();
  } catch (const Error& e) {
    failed(d, field, e);
  }
}

Value evaluated(const jinja::Expression& e, const Document& d, const std::string& field) {
  try {
    return e.evaluate(*d.scope, kTaskLimits, 0);
  } catch (const Error& error) {
    failed(d, field, error);
  }
}

std::vector<std::string> evaluated_texts(const jinja::Expression& e, const Document& d, const char* field) {
  const Value v = evaluated(e, d, field);
  if (!v.is_sequence() || v.items().empty())
    failed(d, field, Error("task", std::string("a list of texts was expected, not ") + type_name(v)));
  std::vector<std::string> out;
  for (const Value& item : v.items()) {
    if (!item.is(Kind::string))
      failed(d, field, Error("task", std::string("a list of texts was expected; it holds ") + type_name(item)));
    out.push_back(item.bytes());
  }
  return out;
}

}  // namespace birkhoff::eval
