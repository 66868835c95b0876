// One task of a task file, read and compiled.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "eval/scoring/scoring.h"
#include "eval/tasks/catalogue.h"
#include "eval/tasks/rows.h"
#include "text/jinja/jinja.h"

namespace birkhoff::eval {

struct ShotsSpec {
  int64_t count = 0;               // unless the run says otherwise
  bool random = false;             // drawn for every document, else the first of the pool
  bool may_hold_document = false;  // one more is drawn, and the document itself is left out
  std::optional<RowsSpec> file;
  int64_t stand_in = 0;                    // without that file: so many of the last documents, which are not evaluated
  std::vector<text::chat::Value> samples;  // written ones: dicts, or texts that templates call "sample"
  std::optional<text::chat::jinja::Expression> samples_of;  // or what makes a list of them
  std::optional<text::chat::jinja::Template> text, target;  // instead of the documents'
  bool given() const { return file || !samples.empty() || samples_of; }
};

struct TaskDefinition {
  std::string name, version, protocol, where;
  text::chat::Value variables;                             // a dict
  std::vector<std::pair<std::string, std::string>> texts;  // variable, file with its text
  RowsSpec documents;
  ShotsSpec shots;
  std::vector<std::pair<std::string, text::chat::jinja::Expression>> fields;
  std::optional<text::chat::jinja::Template> description, text, target, answer, gen_prefix;
  std::optional<text::chat::jinja::Expression> choices, gold, references;
  std::string target_delimiter = " ", fewshot_delimiter = "\n\n";
  std::vector<std::string> until;
  int64_t max_tokens = 0;  // 0: answers are chosen
  Scoring scoring;

  // Throws Error naming the file and the field.
  static TaskDefinition read(const CatalogueTask& task);
};

}  // namespace birkhoff::eval
