// Where the documents of a task lie: rows of JSON lines files, or of a list in a JSON file, below a data directory.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "eval/tasks/section.h"
#include "io/mapped_file.h"
#include "text/jinja/value.h"

namespace birkhoff::eval {

// What a task file says of its rows ("documents", "shots").
struct RowsSpec {
  struct Condition {
    std::string field;
    std::optional<std::string> equal;  // text::chat::hash_form of the value
    int64_t from = 0, to = 0;          // of numbers, when `equal` is absent
  };
  struct Join {  // field: what the row of another file with the same value of `key` has as `value`
    std::string field, file, key, value;
  };
  std::vector<std::string> files;
  std::string list;  // of a JSON file: the field with the list; "": JSON lines
  std::vector<Condition> where;
  std::vector<std::pair<std::string, std::string>> beside;  // field, file with its value on the same line
  std::vector<Join> join;
  std::string form;                  // what a row holds, for whoever looks for a file
  std::vector<std::string> instead;  // files in place of all others where the first of those is absent

  // The fields of a section that say this; others are left to the caller.
  static RowsSpec read(Section& s);
};

// A file of a data directory, which is named from there and stays in it. Throws Error for another.
std::string below_directory(const Section& s, const std::string& key, const std::string& file);

// One file, mapped; rows are parsed when they are asked for.
class RowFile {
 public:
  // JSON lines (blank ones are none), or the list `list` of a JSON file. name: as messages show it. Throws Error.
  RowFile(const std::string& path, const std::string& list);
  RowFile(std::string name, std::string_view content, const std::string& list);  // content outlives the object
  int64_t size() const { return static_cast<int64_t>(list_.empty() ? lines_.size() : list_.size()); }
  text::chat::Value row(int64_t i) const;  // throws Error naming file and line
  std::string place(int64_t i) const;      // "file:line", or "file: list[i]"
  // Rows by hash_form of a field.
  const std::unordered_map<std::string, std::vector<int64_t>>& by_value(const std::string& field);

 private:
  void index(const std::string& list);
  struct Line {
    size_t begin, end;
    int64_t number;
  };
  std::string name_, list_name_;
  std::optional<io::MappedFile> mapped_;
  std::string_view content_;
  std::vector<Line> lines_;
  std::vector<text::chat::Value> list_;
  std::map<std::string, std::unordered_map<std::string, std::vector<int64_t>>> by_value_;
};

// The files below a data directory, or the small set of questions that is compiled in, each opened once.
class DataFiles {
 public:
  DataFiles(std::string directory, bool sample) : directory_(std::move(directory)), sample_(sample) {}
  bool sample() const { return sample_; }
  bool has(const std::string& file) const;
  // Throws Error: no such file, what it would hold (form) and who asks for it.
  std::shared_ptr<RowFile> open(const std::string& file, const std::string& list, const std::string& form,
                                const std::string& asker);
  std::string text(const std::string& file, const std::string& asker);

 private:
  [[noreturn]] void missing(const std::string& file, const std::string& form, const std::string& asker) const;
  std::string directory_;
  bool sample_;
  std::map<std::string, std::shared_ptr<RowFile>> open_;
};

// The rows of a spec in order: files one after the other, those that fulfil every condition.
class Rows {
 public:
  Rows(const RowsSpec& spec, DataFiles& files, const std::string& asker);
  int64_t size() const { return static_cast<int64_t>(places_.size()); }
  // With fields from beside and joined files, last. Throws Error.
  text::chat::Value row(int64_t i) const;
  int64_t number(int64_t i) const { return places_[static_cast<size_t>(i)].number; }  // over all files, unfiltered
  std::string place(int64_t i) const;
  const std::string& remark() const { return remark_; }  // that files stand in for others

 private:
  struct Place {
    int32_t file;
    int64_t row, number;
  };
  struct JoinedFile {
    RowsSpec::Join join;
    std::shared_ptr<RowFile> file;
  };
  bool fulfils(const RowsSpec::Condition& c, const text::chat::Value& row) const;
  void select(const RowsSpec& spec, bool sample);
  std::vector<std::shared_ptr<RowFile>> files_;
  std::vector<std::pair<std::string, std::shared_ptr<RowFile>>> beside_;
  std::vector<JoinedFile> join_;
  std::vector<Place> places_;
  std::string remark_;
};

}  // namespace birkhoff::eval
