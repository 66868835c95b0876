// Task files and the rows they name: an input is a task file, a line "====", and the file with its documents.
#include <filesystem>
#include <fstream>

#include "eval/tasks/task.h"
#include "fuzz/mutate.h"

namespace {

constexpr std::string_view kDivider = "\n====\n";

std::vector<std::string> task_seeds() {
  const std::string rows =
      "{\"q\": \"What is 1 + 1?\", \"a\": [\"2\", \"two\"], \"n\": 1, \"k\": \"x\"}\n"
      "{\"q\": \"{{ q }}\", \"a\": [\"\\u00fc\"], \"n\": 0, \"k\": \"y\"}\n{\"q\": \"c\", \"a\": [\"d\", \"e\"], "
      "\"n\": 1, \"k\": \"x\"}\n";
  const auto seed = [&](const std::string& task) { return task + std::string(kDivider) + rows; };
  return {
      seed(R"task({"name": "t", "version": "2", "documents": {"file": "d.jsonl", "where": {"k": "x"}, "form": "rows"},
 "shots": {"count": 1, "sampler": "random", "may_hold_document": true, "file": "d.jsonl"}, "description": "D.\n\n",
 "text": "Q: {{q}}\nA:", "choices": "a", "gold": "n", "metrics": [{"name": "acc"}, {"name": "acc_norm"}]})task"),
      seed(R"task({"name": "t_{{s}}", "documents": {"file": "d.jsonl", "where": {"n": {"from": 0, "to": 1}}},
 "shots": {"count": 2, "samples": [{"q": "u", "a": ["v"]}, {"q": "w", "a": ["x"]}], "target": "{{a|join(', ')}}."},
 "fields": {"_first": "a[0]", "q": "q|regex_replace('[{}]+', '-')", "found": "q|regex_search('(\\w+) is (.)')", "a": "a"},
 "text": "{% if found is defined and found %}{{found[1]}}{% endif %}{{q}} {{s}}", "target": "{{a[0]}}", "answer": "{{a[-1]}}", "references": "a",
 "target_delimiter": "", "fewshot_delimiter": "\n", "gen_prefix": "Well", "generate": {"until": ["\n", "Q"], "max_tokens": 9},
 "filters": [{"name": "f", "steps": [{"regex": "(\\d+)", "pick": "last"}, "strip"]}],
 "metrics": [{"name": "exact_match", "ignore_case": true, "delete": ["\\."]}],
 "each": [{"s": "one"}, {"s": "two", "version": "3"}], "groups": [{"name": "g"}]
})task"),
      seed(R"task({"like": "gsm8k", "name": "mine", "documents": {"file": "d.jsonl", "beside": {"b": "d.jsonl"},
 "join": {"j": {"file": "d.jsonl", "key": "k", "value": "q"}}}, "shots": {"count": 1, "file": null, "sampler": null,
 "samples": "['Q: a', 'Q: b']", "text": "{{sample}}", "target": "{{sample[3:]}}"}, "text": "{{q}}{{j}}{{b.q}}",
 "target": "{{a[0]}}"})task"),
      R"task({"name": "t", "documents": {"file": "d.jsonl", "list": "rows", "instead": "d.jsonl"}, "text": "{{row}}{{q}}",
 "choices": "['a', 'b']", "gold": "row % 2", "metrics": [{"name": "acc"}]})task" +
          std::string(kDivider) + R"task({"rows": [{"q": "1"}, {"q": "2"}]})task"};
}

}  // namespace

int main(int argc, char** argv) {
  using namespace birkhoff;
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("fuzz_tasks_" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  const std::string task_file = folder / "t.json";
  const auto put = [](const std::filesystem::path& path, std::string_view content) {
    std::ofstream(path, std::ios::binary) << content;
  };
  eval::open_tasks({"gsm8k"}, [] {  // reads what is built in, once
    eval::TaskOptions o;
    o.sample = true;
    return o;
  }());
  fuzz::Target t;
  t.name = "tasks";
  t.seeds = task_seeds();
  t.dictionary = {"\"each\": [",
                  "\"like\": \"mmlu\"",
                  "\"where\": {",
                  "\"list\": ",
                  "\"join\": {",
                  "\"samples\": \"",
                  "null",
                  "{{",
                  "}}",
                  "{%",
                  "|regex_replace(",
                  "|regex_search('",
                  "(a+)+$",
                  "[[:",
                  "\\\\1",
                  "|map(",
                  "range(99999)",
                  "* 99999",
                  "last_boxed(q)",
                  "minerva_normalize(q)",
                  "\"stand_in\": 1",
                  "\"../d.jsonl\"",
                  "\"count\": 999999999",
                  "1e999",
                  "\\u0000",
                  "\"name\": \"gsm8k\"",
                  "====",
                  "\"protocol\": \"paper\"",
                  "a[0]",
                  ".q"};
  t.run = [&](const std::string& input) {
    const size_t at = std::min(input.find(kDivider), input.size());
    put(task_file, std::string_view(input).substr(0, at));
    put(folder / "d.jsonl", at == input.size() ? "" : std::string_view(input).substr(at + kDivider.size()));
    eval::TaskOptions options;
    options.data_dir = folder;
    options.conversation = input.size() % 2 == 0;
    eval::Selection selection;
    selection.limit = 2;
    for (const eval::Task& task : eval::open_tasks({task_file}, options).tasks) task.questions(selection);
  };
  const int result = fuzz::run(argc, argv, t);
  std::filesystem::remove_all(folder);
  return result;
}
