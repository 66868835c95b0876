// From a row of a file to a document, and what templates make of it.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "eval/tasks/definition.h"
#include "text/jinja/value.h"

namespace birkhoff::eval {

struct Document {
  text::chat::Value value;                        // a dict: the row, or the fields that the task makes of it
  std::shared_ptr<text::chat::DictObject> scope;  // what templates see: beside it variables, texts and hidden fields
  std::string place;                              // of the row, for messages
};

// Makes documents of one task. All calls throw Error{"data"} naming place, field and cause.
class DocumentMaker {
 public:
  DocumentMaker(const TaskDefinition& task, DataFiles& files);  // reads the task's texts
  Document of_row(const text::chat::Value& row, int64_t number, std::string place) const;
  Document of_sample(const text::chat::Value& sample, std::string place) const;  // a dict, or a text
  const text::chat::DictObject& scope() const { return *base_; }                 // without a document

 private:
  std::shared_ptr<text::chat::DictObject> scope_of(const text::chat::Value& row) const;
  const TaskDefinition& task_;
  std::shared_ptr<text::chat::DictObject> base_;
};

std::string rendered(const text::chat::jinja::Template& t, const Document& d, const char* field);
text::chat::Value evaluated(const text::chat::jinja::Expression& e, const Document& d, const std::string& field);
std::vector<std::string> evaluated_texts(const text::chat::jinja::Expression& e, const Document& d, const char* field);

}  // namespace birkhoff::eval
