#include "eval/tasks/catalogue.h"

#include <algorithm>

#include "core/error.h"
#include "core/nearest.h"
#include "eval/tasks/built_in.h"
#include "eval/tasks/section.h"
#include "io/user_files.h"
#include "text/jinja/json_value.h"

namespace birkhoff::eval {

using text::chat::DictObject;
using text::chat::Kind;
using text::chat::Value;

namespace {

constexpr size_t kMostBytes = size_t{4} << 20;  // of a task file
constexpr size_t kMostTasks = 10'000;           // of one file
constexpr int kMostBases = 8;                   // files behind one another's "like"

// Members of an entry of "each" that stand for the file's own; all others are variables.
constexpr std::string_view kFields[] = {"name",
                                        "version",
                                        "documents",
                                        "shots",
                                        "fields",
                                        "texts",
                                        "description",
                                        "text",
                                        "target",
                                        "gold",
                                        "choices",
                                        "answer",
                                        "references",
                                        "target_delimiter",
                                        "fewshot_delimiter",
                                        "gen_prefix",
                                        "generate",
                                        "filters",
                                        "metrics"};

Value task_json(std::string_view json, const std::string& where) {
  try {
    return text::chat::parse_json(io::without_mark(json));
  } catch (const Error& e) {
    throw Error("task", where + ": " + e.said(), "a task file is one JSON object: docs/eval.md");
  }
}

template <class Keep>
Value filtered(const Value& dict, Keep keep) {
  auto left = std::make_shared<DictObject>();
  for (const auto& [key, value] : dict.as_dict().entries)
    if (keep(key.bytes(), value)) left->set(key, value);
  return Value::dict(std::move(left));
}

bool is_field(const std::string& name) {
  return std::find(std::begin(kFields), std::end(kFields), name) != std::end(kFields);
}

// A JSON merge patch (RFC 7386): objects are merged, everything else is replaced, null takes away.
Value patched(const Value& base, const Value& patch) {
  if (!patch.is(Kind::dict)) return patch;
  auto out = std::make_shared<DictObject>();
  if (base.is(Kind::dict))
    for (const auto& [key, value] : base.as_dict().entries) out->set(key, value);
  for (const auto& [key, value] : patch.as_dict().entries) {
    const Value* old = out->find(key);
    out->set(key, patched(old ? *old : Value::none(), value));
  }
  return filtered(Value::dict(std::move(out)), [](const std::string&, const Value& v) { return !v.is(Kind::none); });
}

const BuiltInFile* built_in_task(const std::string& stem) {
  for (const BuiltInFile& f : built_in_files())
    if (f.path == stem + ".json") return &f;
  return nullptr;
}

// The file over the one that it is "like".
Value with_base(const Value& file, const std::string& where, int bases = 0) {
  Section s(file, where);
  if (!s.has("like")) return file;
  const std::string stem = s.text("like");
  const BuiltInFile* base = built_in_task(stem);
  if (!base) s.refuse("like", "there is no built-in task file \"" + stem + "\"");
  if (bases == kMostBases) s.refuse("like", "more than " + std::to_string(kMostBases) + " files behind one another");
  const Value below = with_base(task_json(base->content, stem + ".json"), stem + ".json", bases + 1);
  return patched(below, filtered(file, [](const std::string& key, const Value&) { return key != "like"; }));
}

std::vector<Value> entries_of(Section& s) {
  if (!s.has("each")) return {Value::dict(std::make_shared<DictObject>())};
  const Value& each = s.need("each");
  if (!each.is(Kind::list) || each.items().empty() || each.items().size() > kMostTasks)
    s.refuse("each", "a list of 1 to " + std::to_string(kMostTasks) + " objects was expected");
  for (const Value& entry : each.items())
    if (!entry.is(Kind::dict)) s.refuse("each", "a list of objects was expected");
  return each.items();
}

template <class T>
const T* named(const std::vector<T>& list, const std::string& name) {
  for (const T& item : list)
    if (item.name == name) return &item;
  return nullptr;
}

}  // namespace

std::string protocol_suffix(const std::string& protocol) {
  if (protocol == "harness") return "";
  if (protocol == "paper") return "_paper";
  throw Error("task", "unknown protocol \"" + protocol + "\"", "harness or paper", ExitCode::usage);
}

const Catalogue& Catalogue::built_in() {
  static const Catalogue catalogue = [] {
    Catalogue c;
    for (const BuiltInFile& f : built_in_files())
      if (f.path.find('/') == std::string_view::npos)
        c.add(task_json(f.content, std::string(f.path)), std::string(f.path));
    return c;
  }();
  return catalogue;
}

std::vector<std::string> Catalogue::add_file(const std::string& path) {
  return add(task_json(io::read_file(path, kMostBytes), path), path);
}

std::vector<std::string> Catalogue::add(const Value& file, const std::string& where) {
  const Value whole = with_base(file, where);
  Section s(whole, where);
  const std::string protocol = s.text("protocol", "harness");
  const std::string suffix = at_place(s.place("protocol"), [&] { return protocol_suffix(protocol); });
  const Value own = filtered(whole, [](const std::string& key, const Value&) {
    return key != "each" && key != "groups" && key != "protocol";
  });
  std::vector<std::string> tasks, tops;
  for (const Value& entry : entries_of(s)) {
    CatalogueTask task;
    task.variables = filtered(entry, [](const std::string& key, const Value&) { return !is_field(key); });
    task.fields = patched(own, filtered(entry, [](const std::string& key, const Value&) { return is_field(key); }));
    Section fields(task.fields, where);
    const auto name = fields.pattern("name");
    if (!name) fields.refuse("name", "is missing");
    task.name =
        at_place(fields.place("name"), [&] { return name->render(task.variables.as_dict(), kTaskLimits, 0).bytes(); }) +
        suffix;
    task.protocol = protocol;
    task.file = where;
    if (task.name.empty() || task.name.find_first_of("/, \t\n") != std::string::npos || named(tasks_, task.name) ||
        named(groups_, task.name))
      fields.refuse("name", "\"" + task.name + "\" is taken, or no name of a task");
    tasks.push_back(task.name);
    tasks_.push_back(std::move(task));
  }
  if (!s.has("groups")) return tasks;
  const Value& groups = s.need("groups");
  if (!groups.is(Kind::list)) s.refuse("groups", "a list of objects was expected");
  for (const Value& v : groups.items()) {
    Section g(v, s.place("groups"));
    CatalogueGroup group{g.text("name") + suffix, g.text("version", "1.0"), protocol, {}};
    for (const std::string& member : g.texts("tasks")) group.members.push_back(member + suffix);
    if (!g.has("tasks")) group.members = tasks;
    g.done();
    if (named(tasks_, group.name) || named(groups_, group.name)) g.refuse("name", "\"" + group.name + "\" is taken");
    tops.push_back(group.name);
    groups_.push_back(std::move(group));
  }
  for (const CatalogueGroup& g : groups_)
    for (const std::string& member : g.members) std::erase(tops, member);
  return tops;
}

const CatalogueTask* Catalogue::task(const std::string& name) const { return named(tasks_, name); }
const CatalogueGroup* Catalogue::group(const std::string& name) const { return named(groups_, name); }

std::string Catalogue::resolved(const std::string& name, const std::string& protocol) const {
  const std::string suffix = protocol_suffix(protocol);
  const auto known = [&](const std::string& n) { return task(n) || group(n); };
  if (known(name + suffix)) return name + suffix;
  if (name.ends_with(suffix) && known(name)) return name;
  std::vector<std::string> names = all(protocol);
  for (std::string& n : names) n.resize(n.size() - suffix.size());
  const std::string near = nearest(name, names);
  throw Error("task",
              "unknown task \"" + name + "\"" + (suffix.empty() ? "" : " of protocol " + protocol) +
                  (near.empty() ? "" : "; did you mean \"" + near + "\"?"),
              "eval --list shows all; a path of a task file ends in .json", ExitCode::usage);
}

std::vector<std::string> Catalogue::leaves(const std::string& name) const {
  std::vector<std::string> out, waiting{name};
  std::vector<std::string> seen;
  while (!waiting.empty()) {
    const std::string next = waiting.back();
    waiting.pop_back();
    if (std::find(seen.begin(), seen.end(), next) != seen.end()) continue;
    seen.push_back(next);
    if (const CatalogueGroup* g = group(next))
      waiting.insert(waiting.end(), g->members.rbegin(), g->members.rend());
    else if (task(next))
      out.push_back(next);
    else
      throw Error("task", "group \"" + name + "\": there is no task \"" + next + "\"");
  }
  return out;
}

std::vector<std::string> Catalogue::all(const std::string& protocol) const {
  std::vector<std::string> names;
  for (const CatalogueTask& t : tasks_)
    if (t.protocol == protocol) names.push_back(t.name);
  for (const CatalogueGroup& g : groups_)
    if (g.protocol == protocol) names.push_back(g.name);
  return names;
}

}  // namespace birkhoff::eval
