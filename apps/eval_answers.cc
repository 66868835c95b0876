// What `eval` does without a model: listing tasks, judging answers, comparing evaluations.
#include <cstdio>
#include <map>
#include <memory>

#include "apps/eval_modes.h"
#include "apps/output.h"
#include "core/error.h"
#include "eval/compare_results.h"
#include "eval/sandbox/sandbox.h"
#include "eval/scoring/score_lines.h"
#include "eval/tasks/task.h"
#include "io/json_file.h"
#include "io/user_files.h"
#include "report/evaluation_page.h"

namespace birkhoff::apps {

eval::TaskOptions EvalFlags::task_options() const {
  eval::TaskOptions o;
  o.data_dir = data_dir, o.protocol = protocol, o.shots = shots, o.conversation = chat, o.system = system;
  o.seed = seed, o.sample = sample;
  return o;
}

eval::RunProgram EvalFlags::program_runner() const {
  const auto sandbox = std::make_shared<eval::Sandbox>();
  std::string said;
  for (const std::string& p : sandbox->protections()) said += (said.empty() ? "" : ", ") + p;
  std::fprintf(stderr, "birkhoff: programs are run with: %s\n", said.c_str());
  return [sandbox](const std::string& program) { return sandbox->run(program).end == eval::ProgramEnd::passed; };
}

int list_eval_tasks(const EvalFlags& f) {
  const auto tasks = eval::list_tasks(f.task_options());
  const auto groups = eval::list_groups(f.task_options());
  if (f.json) {
    nlohmann::json all = {{"tasks", nlohmann::json::array()}, {"groups", nlohmann::json::object()}};
    for (const eval::TaskListing& t : tasks)
      all["tasks"].push_back({{"name", t.name},
                              {"version", t.version},
                              {"num_fewshot", t.shots},
                              {"documents", t.documents ? nlohmann::json(*t.documents) : nlohmann::json()}});
    for (const eval::TaskGroup& g : groups) all["groups"][g.name] = {{"version", g.version}, {"tasks", g.tasks}};
    write_line(all.dump());
    return 0;
  }
  std::printf("%-52s %8s %6s %10s\n", "task", "version", "shots", "documents");
  for (const eval::TaskListing& t : tasks)
    std::printf("%-52s %8s %6lld %10s\n", t.name.c_str(), t.version.c_str(), static_cast<long long>(t.shots),
                t.documents ? std::to_string(*t.documents).c_str() : "-");
  for (const eval::TaskGroup& g : groups)
    std::printf("%-52s %8s %6s %10s\n", g.name.c_str(), g.version.c_str(), "",
                (std::to_string(g.tasks.size()) + " tasks").c_str());
  return 0;
}

int score_answers(const EvalFlags& f) {
  if (!f.jsonl) throw Error("eval", "--score reads JSON lines", "--score --jsonl", ExitCode::usage);
  std::map<std::string, eval::Task> tasks;
  const auto find = [&](const std::string& name) -> const eval::Task& {
    const auto known = tasks.find(name);
    if (known != tasks.end()) return known->second;
    eval::TaskSet set = eval::open_tasks({name}, f.task_options());
    if (set.tasks.size() != 1)
      throw Error("eval", "\"" + name + "\" is a group of " + std::to_string(set.tasks.size()) + " tasks",
                  "name one of them");
    return tasks.emplace(name, std::move(set.tasks.front())).first->second;
  };
  const auto references = [&](const std::string& name, int64_t doc) {
    return find(name).questions({std::nullopt, {doc}}).at(0).references;
  };
  const eval::LineScorer scorer([&](const std::string& name) -> const eval::Scoring& { return find(name).scoring; },
                                references, f.allow_code ? f.program_runner() : eval::RunProgram());
  int64_t number = 0;
  for (std::string line; next_line(line);) write_line(scorer.score(line, ++number));
  return 0;
}

int compare_evaluations(const EvalFlags& f) {
  const nlohmann::json comparison = eval::compare_results(f.compare);
  if (!f.out.empty()) {
    io::create_directories(f.out);
    io::write_json(f.out + "/comparison.json", comparison);
    report::write_evaluation_comparison(f.out + "/comparison.html", comparison);
  }
  if (f.json)
    write_line(comparison.dump());
  else
    std::printf("%s", eval::comparison_table(comparison).c_str());
  return 0;
}

}  // namespace birkhoff::apps
