#include "eval/tasks/definition.h"

#include "core/error.h"
#include "eval/tasks/section.h"
#include "text/jinja/python_print.h"

namespace birkhoff::eval {

using text::chat::DictObject;
using text::chat::Kind;
using text::chat::Value;
namespace jinja = text::chat::jinja;

namespace {

constexpr int64_t kHarnessMaxTokens = 256;  // of lm-evaluation-harness, where a task says nothing

// Every text of a value as a template of the variables.
Value put_in(const Value& v, const Value& variables) {
  if (v.is(Kind::string) && v.bytes().find("{{") != std::string::npos)
    return Value::string(jinja::Template(v.bytes(), jinja::Dialect::task).render(variables.as_dict(), kTaskLimits, 0));
  if (v.is(Kind::list)) {
    std::vector<Value> items;
    for (const Value& item : v.items()) items.push_back(put_in(item, variables));
    return Value::list(std::move(items));
  }
  if (!v.is(Kind::dict)) return v;
  auto out = std::make_shared<DictObject>();
  for (const auto& [key, value] : v.as_dict().entries) out->set(key, put_in(value, variables));
  return Value::dict(std::move(out));
}

// The fields of "shots" that name rows have variables put in; templates and samples are left as they are.
Value rows_put_in(const Value& shots, const Value& variables) {
  if (!shots.is(Kind::dict)) return shots;
  auto out = std::make_shared<DictObject>();
  for (const auto& [key, value] : shots.as_dict().entries) {
    const bool rows =
        key.bytes() == "file" || key.bytes() == "where" || key.bytes() == "beside" || key.bytes() == "join";
    out->set(key, rows ? put_in(value, variables) : value);
  }
  return Value::dict(std::move(out));
}

void read_samples(Section& s, ShotsSpec& spec) {
  if (!s.has("samples")) return;
  const Value& v = s.need("samples");
  if (v.is(Kind::string)) {
    spec.samples_of = s.expression("samples");
    return;
  }
  if (!v.is(Kind::list) || v.items().empty()) s.refuse("samples", "a list of objects, or an expression was expected");
  for (const Value& sample : v.items())
    if (!sample.is(Kind::dict) && !sample.is(Kind::string)) s.refuse("samples", "a list of objects was expected");
  spec.samples = v.items();
}

ShotsSpec read_shots(Section s) {
  ShotsSpec spec;
  spec.count = s.integer("count", 0);
  const std::string sampler = s.text("sampler", "first_n");
  if (sampler != "first_n" && sampler != "random") s.refuse("sampler", "\"" + sampler + "\": first_n or random");
  spec.random = sampler == "random";
  spec.may_hold_document = s.flag("may_hold_document", false);
  spec.stand_in = s.integer("stand_in", 0);
  spec.text = s.pattern("text");
  spec.target = s.pattern("target");
  read_samples(s, spec);
  if (s.has("file")) spec.file = RowsSpec::read(s);
  if (spec.file && (spec.samples_of || !spec.samples.empty()))
    s.refuse("samples", "there is a \"file\" too: a pool is one or the other");
  if (!spec.given()) s.refuse("file", "is missing, and so is \"samples\"");
  if (spec.stand_in && !spec.file) s.refuse("stand_in", "stands for a \"file\", which is missing");
  s.done();
  return spec;
}

void read_answers(Section& s, TaskDefinition& d) {
  d.choices = s.expression("choices");
  d.gold = s.expression("gold");
  if (d.choices.has_value() == s.has("generate"))
    s.refuse("generate", "one of \"choices\" and \"generate\" was expected, not both or none");
  if (d.choices && !d.gold) s.refuse("gold", "is missing: an expression with the index of the right choice");
  if (d.choices) return;
  if (d.gold) s.refuse("gold", "goes with \"choices\"");
  Section generate = s.section("generate");
  d.until = generate.texts("until");
  d.max_tokens = generate.integer("max_tokens", kHarnessMaxTokens);
  if (d.max_tokens == 0) generate.refuse("max_tokens", "at least 1 was expected");
  generate.done();
  if (!s.has("target")) s.refuse("target", "is missing: the right answer of a shot");
}

Scoring read_scoring(Section& s) {
  auto rules = std::make_shared<DictObject>();
  if (s.has("filters")) rules->set("filters", s.need("filters"));
  rules->set("metrics", s.need("metrics"));
  return Scoring::read(nlohmann::json::parse(json_dump(Value::dict(std::move(rules))).bytes()), s.where());
}

}  // namespace

TaskDefinition TaskDefinition::read(const CatalogueTask& task) {
  const std::string where = task.file + ": " + task.name;
  Section s(task.fields, where);
  TaskDefinition d;
  s.has("name");
  d.name = task.name, d.protocol = task.protocol, d.where = where, d.variables = task.variables;
  d.version = s.text("version", "1.0");
  const auto with_variables = [&](const char* key) {
    return at_place(s.place(key), [&] { return put_in(s.need(key), task.variables); });
  };
  Section documents(with_variables("documents"), s.place("documents"));
  d.documents = RowsSpec::read(documents);
  documents.done();
  if (s.has("texts")) {
    Section texts(with_variables("texts"), s.place("texts"));
    for (const auto& [name, value] : texts.entries())
      d.texts.emplace_back(name, below_directory(texts, name, texts.text(name)));
  }
  if (s.has("shots"))
    d.shots = read_shots(
        {at_place(s.place("shots"), [&] { return rows_put_in(s.need("shots"), task.variables); }), s.place("shots")});
  if (s.has("fields")) {
    Section fields = s.section("fields");
    for (const auto& [name, value] : fields.entries()) d.fields.emplace_back(name, *fields.expression(name));
  }
  d.description = s.pattern("description");
  s.text("text");
  d.text = s.pattern("text"), d.target = s.pattern("target"), d.answer = s.pattern("answer");
  d.gen_prefix = s.pattern("gen_prefix"), d.references = s.expression("references");
  d.target_delimiter = s.text("target_delimiter", d.target_delimiter);
  d.fewshot_delimiter = s.text("fewshot_delimiter", d.fewshot_delimiter);
  read_answers(s, d);
  d.scoring = read_scoring(s);
  s.done();
  return d;
}

}  // namespace birkhoff::eval
