#include "core/error.h"
#include "eval/tasks/built_in.h"
#include "eval/tasks/rows.h"
#include "io/user_files.h"
#include "text/jinja/json_value.h"
#include "text/unicode/utf8.h"

namespace birkhoff::eval {

using text::chat::Kind;
using text::chat::Value;

namespace {

constexpr size_t kMostText = size_t{8} << 20;  // of a text that a task shows

std::string_view as_text(const io::MappedFile& f) {
  return {reinterpret_cast<const char*>(f.bytes().data()), f.bytes().size()};
}

Value parsed(std::string_view json, const std::string& place) {
  try {
    return text::chat::parse_json(json);
  } catch (const Error& e) {
    throw Error("data", place + ": " + e.said(), "one JSON value was expected; is the file cut?");
  }
}

const BuiltInFile* sample_file(const std::string& file) {
  for (const BuiltInFile& f : built_in_files())
    if (f.path == "samples/" + file) return &f;
  return nullptr;
}

}  // namespace

RowFile::RowFile(const std::string& path, const std::string& list) : name_(path), mapped_(std::in_place, path) {
  content_ = as_text(*mapped_);
  index(list);
}

RowFile::RowFile(std::string name, std::string_view content, const std::string& list)
    : name_(std::move(name)), content_(content) {
  index(list);
}

void RowFile::index(const std::string& list) {
  content_ = io::without_mark(content_);
  list_name_ = list;
  if (!list.empty()) {
    const Value all = parsed(content_, name_);
    const Value found = get(all, list);
    if (!found.is(Kind::list)) throw Error("data", name_ + ": no list \"" + list + "\"");
    list_ = found.items();
    if (list_.empty()) throw Error("data", name_ + ": \"" + list + "\" is empty");
    return;
  }
  int64_t number = 0;
  for (size_t begin = 0; begin < content_.size();) {
    const size_t end = std::min(content_.find('\n', begin), content_.size());
    ++number;
    if (content_.substr(begin, end - begin).find_first_not_of(" \t\r") != std::string_view::npos)
      lines_.push_back({begin, end, number});
    begin = end + 1;
  }
  if (lines_.empty()) throw Error("data", name_ + ": no rows", "JSON lines were expected");
}

std::string RowFile::place(int64_t i) const {
  if (list_name_.empty()) return name_ + ":" + std::to_string(lines_[static_cast<size_t>(i)].number);
  return name_ + ": " + list_name_ + "[" + std::to_string(i) + "]";
}

Value RowFile::row(int64_t i) const {
  BK_CHECK(i >= 0 && i < size());
  if (!list_name_.empty()) return list_[static_cast<size_t>(i)];
  const Line& line = lines_[static_cast<size_t>(i)];
  return parsed(content_.substr(line.begin, line.end - line.begin), place(i));
}

const std::unordered_map<std::string, std::vector<int64_t>>& RowFile::by_value(const std::string& field) {
  const auto [it, fresh] = by_value_.try_emplace(field);
  if (!fresh) return it->second;
  for (int64_t i = 0; i < size(); ++i) {
    const Value v = get(row(i), field);
    if (v.is(Kind::undefined)) throw Error("data", place(i) + ": no field \"" + field + "\"");
    if (v.is(Kind::list) || v.is(Kind::dict))
      throw Error("data", place(i) + ": \"" + field + "\": a text or a number was expected");
    it->second[hash_form(v)].push_back(i);
  }
  return it->second;
}

bool DataFiles::has(const std::string& file) const {
  if (sample_) return sample_file(file) != nullptr;
  return !directory_.empty() && io::is_file(directory_ + "/" + file);
}

void DataFiles::missing(const std::string& file, const std::string& form, const std::string& asker) const {
  const std::string holds = form.empty() ? "" : "; it holds " + form;
  if (sample_) throw Error("data", asker + ": tasks/samples has no " + file + holds, "give --data-dir instead");
  if (directory_.empty())
    throw Error("data", asker + " reads " + file + " below --data-dir, which is not given" + holds,
                "tools/eval_data.py DIR brings the sets; --sample asks a few questions that are built in",
                ExitCode::usage);
  throw Error("data", directory_ + "/" + file + ": no such file; " + asker + " reads it" + holds,
              "tools/eval_data.py " + directory_ + " brings the sets; --sample asks a few questions that are built in");
}

std::shared_ptr<RowFile> DataFiles::open(const std::string& file, const std::string& list, const std::string& form,
                                         const std::string& asker) {
  std::shared_ptr<RowFile>& entry = open_[file + "\n" + list];
  if (entry) return entry;
  if (!has(file)) missing(file, form, asker);
  if (sample_)
    entry = std::make_shared<RowFile>("tasks/samples/" + file, sample_file(file)->content, list);
  else
    entry = std::make_shared<RowFile>(directory_ + "/" + file, list);
  return entry;
}

std::string DataFiles::text(const std::string& file, const std::string& asker) {
  if (!has(file)) missing(file, "a text that stands before the questions", asker);
  std::string text =
      sample_ ? std::string(sample_file(file)->content) : io::read_file(directory_ + "/" + file, kMostText);
  if (const size_t bad = text::first_invalid(text); bad != text.size())
    throw Error("data", file + ": not UTF-8 at byte " + std::to_string(bad));
  return text;
}

}  // namespace birkhoff::eval
