#include <algorithm>

#include "core/error.h"
#include "eval/tasks/catalogue.h"
#include "eval/tasks/source.h"
#include "io/sha256.h"
#include "text/jinja/python_print.h"

namespace birkhoff::eval {

Task::Source::Source(TaskDefinition d, const TaskOptions& o, const std::shared_ptr<DataFiles>& f)
    : definition(std::move(d)),
      options(o),
      files(f),
      maker(definition, *f),
      rows(definition.documents, *f, "task " + definition.name),
      documents(rows.size()),
      shots(definition.shots.given() ? o.shots.value_or(definition.shots.count) : 0) {
  const ShotsSpec& s = definition.shots;
  const std::string asker = "task " + definition.name;
  if (!s.file) return;
  if (f->has(s.file->files[0]) || (shots > 0 && s.stand_in == 0)) {
    pool.emplace(*s.file, *f, asker);
  } else if (s.stand_in > 0) {
    documents -= s.stand_in;
    stand_in = "the last " + std::to_string(s.stand_in) + " documents are not evaluated: they stand in for " +
               s.file->files[0] + ", which is not there";
    if (documents < 1)
      throw Error("data", asker + ": " + std::to_string(rows.size()) + " documents, of which " +
                              std::to_string(s.stand_in) + " would stand in for " + s.file->files[0]);
  }
}

Task TaskReader::read(const CatalogueTask& c, const TaskOptions& options, const std::shared_ptr<DataFiles>& files) {
  auto source = std::make_shared<Task::Source>(TaskDefinition::read(c), options, files);
  const TaskDefinition& d = source->definition;
  Task task;
  task.name = d.name, task.version = d.version, task.protocol = d.protocol;
  task.shots = source->shots;
  task.until = d.until, task.max_tokens = d.max_tokens;
  task.scoring = d.scoring;
  if (options.sample) task.remarks.push_back("a few questions of our own writing: no figure of the set");
  for (const std::string& remark : {source->rows.remark(), source->stand_in})
    if (!remark.empty()) task.remarks.push_back(remark);
  task.source_ = std::move(source);
  return task;
}

namespace {

bool is_path(const std::string& name) { return name.ends_with(".json"); }

TaskGroup as_group(const Catalogue& all, const CatalogueGroup& g) { return {g.name, g.version, all.leaves(g.name)}; }

// Groups below a name, itself first.
void add_groups(const Catalogue& all, const std::string& name, std::vector<TaskGroup>& groups) {
  const CatalogueGroup* g = all.group(name);
  const auto same = [&](const TaskGroup& other) { return other.name == name; };
  if (!g || std::any_of(groups.begin(), groups.end(), same)) return;
  groups.push_back(as_group(all, *g));
  for (const std::string& member : g->members) add_groups(all, member, groups);
}

std::vector<std::string> wanted(Catalogue& all, const std::vector<std::string>& names, const std::string& protocol) {
  std::vector<std::string> out;
  const auto append = [&](const std::vector<std::string>& more) { out.insert(out.end(), more.begin(), more.end()); };
  for (const std::string& name : names) {
    if (is_path(name))
      append(all.add_file(name));
    else if (name == "all")
      append(all.all(protocol));
    else
      out.push_back(all.resolved(name, protocol));
  }
  if (out.empty()) throw Error("task", "no task is named", "eval --list shows all", ExitCode::usage);
  return out;
}

}  // namespace

TaskSet open_tasks(const std::vector<std::string>& names, const TaskOptions& options) {
  Catalogue all = Catalogue::built_in();
  const auto files = std::make_shared<DataFiles>(options.data_dir, options.sample);
  TaskSet set;
  const auto opened = [&](const std::string& name) {
    return std::any_of(set.tasks.begin(), set.tasks.end(), [&](const Task& t) { return t.name == name; });
  };
  for (const std::string& name : wanted(all, names, options.protocol)) {
    for (const std::string& leaf : all.leaves(name))
      if (!opened(leaf)) set.tasks.push_back(TaskReader::read(*all.task(leaf), options, files));
    add_groups(all, name, set.groups);
  }
  return set;
}

std::vector<TaskListing> list_tasks(const TaskOptions& options) {
  const Catalogue& all = Catalogue::built_in();
  const auto files = std::make_shared<DataFiles>(options.data_dir, options.sample);
  protocol_suffix(options.protocol);
  std::vector<TaskListing> out;
  for (const CatalogueTask& c : all.tasks()) {
    if (c.protocol != options.protocol) continue;
    TaskListing listing;
    listing.name = c.name;
    const TaskDefinition d = TaskDefinition::read(c);
    listing.version = d.version;
    listing.shots = d.shots.given() ? options.shots.value_or(d.shots.count) : 0;
    try {
      listing.documents = TaskReader::read(c, options, files).documents();
    } catch (const Error&) {  // said by whoever asks for the task
    }
    out.push_back(listing);
  }
  return out;
}

std::vector<TaskGroup> list_groups(const TaskOptions& options) {
  const Catalogue& all = Catalogue::built_in();
  std::vector<TaskGroup> out;
  for (const CatalogueGroup& g : all.groups())
    if (g.protocol == options.protocol) out.push_back(as_group(all, g));
  return out;
}

std::string document_hash(const text::chat::Value& document) {
  text::chat::JsonStyle style;
  style.indent = 2;
  return io::sha256(json_dump(document, style).bytes());
}

std::string prompt_hash(const std::string& context) { return io::sha256(context); }

}  // namespace birkhoff::eval
