#include "eval/tasks/rows.h"

#include <algorithm>

#include "core/error.h"

namespace birkhoff::eval {

using text::chat::DictObject;
using text::chat::Kind;
using text::chat::Value;

namespace {

RowsSpec::Condition read_condition(const std::string& field, const Value& v, const Section& s) {
  RowsSpec::Condition c{field, std::nullopt, 0, 0};
  if (v.is(Kind::dict)) {
    Section range(v, s.place(field));
    c.from = range.integer("from", 0);
    c.to = range.integer("to", std::numeric_limits<int64_t>::max());
    range.done();
  } else if (v.is(Kind::string) || v.is_number()) {
    c.equal = hash_form(v);
  } else {
    s.refuse(field, "a value, or {\"from\", \"to\"} was expected");
  }
  return c;
}

Value with_field(const Value& row, const std::string& name, Value value) {
  auto dict = std::make_shared<DictObject>();
  for (const auto& [key, v] : row.as_dict().entries) dict->set(key, v);
  dict->set(name, std::move(value));
  return Value::dict(std::move(dict));
}

}  // namespace

std::string below_directory(const Section& s, const std::string& key, const std::string& file) {
  if (file.empty() || file[0] == '/' || ("/" + file + "/").find("/../") != std::string::npos ||
      file.find('\0') != std::string::npos)
    s.refuse(key, "a file below the data directory was expected, not \"" + file + "\"");
  return file;
}

RowsSpec RowsSpec::read(Section& s) {
  RowsSpec spec;
  for (const std::string& file : s.texts("file")) spec.files.push_back(below_directory(s, "file", file));
  if (spec.files.empty()) s.refuse("file", "is missing");
  for (const std::string& file : s.texts("instead")) spec.instead.push_back(below_directory(s, "instead", file));
  spec.list = s.text("list", "");
  spec.form = s.text("form", "");
  if (s.has("where")) {
    const Section where = s.section("where");
    for (const auto& [field, value] : where.entries()) spec.where.push_back(read_condition(field, value, where));
  }
  if (s.has("beside")) {
    Section beside = s.section("beside");
    for (const auto& [field, value] : beside.entries())
      spec.beside.emplace_back(field, below_directory(beside, field, beside.text(field)));
  }
  if (s.has("join")) {
    Section join = s.section("join");
    for (const auto& [field, value] : join.entries()) {
      Section j = join.section(field);
      spec.join.push_back({field, below_directory(j, "file", j.text("file")), j.text("key"), j.text("value")});
      j.done();
    }
  }
  if (!spec.beside.empty() && spec.files.size() > 1) s.refuse("beside", "goes with one file, not with several");
  return spec;
}

Rows::Rows(const RowsSpec& spec, DataFiles& files, const std::string& asker) {
  const bool replaced = !spec.instead.empty() && !files.has(spec.files[0]) && files.has(spec.instead[0]);
  if (replaced) remark_ = spec.instead[0] + " stands in for " + spec.files[0] + ", which is not there";
  for (const std::string& file : replaced ? spec.instead : spec.files)
    files_.push_back(files.open(file, spec.list, spec.form, asker));
  for (const auto& [field, file] : spec.beside) {
    beside_.emplace_back(field, files.open(file, "", "the \"" + field + "\" of every row, one a line", asker));
    if (beside_.back().second->size() != files_[0]->size())
      throw Error("data", file + " has " + std::to_string(beside_.back().second->size()) + " values, " + spec.files[0] +
                              " " + std::to_string(files_[0]->size()) + " rows");
  }
  for (const RowsSpec::Join& j : spec.join) {
    const std::string form = "JSON lines of {\"" + j.key + "\", \"" + j.value + "\"}";
    join_.push_back({j, files.open(j.file, "", form, asker)});
    join_.back().file->by_value(j.key);
  }
  select(spec, files.sample());
}

bool Rows::fulfils(const RowsSpec::Condition& c, const Value& row) const {
  const Value v = get(row, c.field);
  if (c.equal) return (v.is(Kind::string) || v.is_number()) && hash_form(v) == *c.equal;
  return v.is_int() && v.as_int() >= c.from && v.as_int() <= c.to;
}

// Equal values are looked up, since a family of tasks shares a file: 57 subjects in 14,042 rows.
void Rows::select(const RowsSpec& spec, bool sample) {
  int64_t before = 0;
  for (size_t f = 0; f < files_.size(); ++f) {
    std::vector<int64_t> kept;
    const auto first = std::find_if(spec.where.begin(), spec.where.end(), [](const auto& c) { return c.equal; });
    if (first == spec.where.end()) {
      for (int64_t i = 0; i < files_[f]->size(); ++i) kept.push_back(i);
    } else {
      const auto& index = files_[f]->by_value(first->field);
      if (const auto found = index.find(*first->equal); found != index.end()) kept = found->second;
    }
    if (spec.where.size() > (first != spec.where.end() ? 1u : 0u))
      std::erase_if(kept, [&](int64_t i) {
        const Value row = files_[f]->row(i);
        return !std::all_of(spec.where.begin(), spec.where.end(), [&](const auto& c) { return fulfils(c, row); });
      });
    for (const int64_t i : kept) places_.push_back({static_cast<int32_t>(f), i, before + i});
    before += files_[f]->size();
  }
  if (!places_.empty()) return;
  // The few questions that are built in serve every member of a family.
  if (!sample) throw Error("data", files_[0]->place(0) + ": no row fulfils \"where\"");
  for (int64_t i = 0; i < files_[0]->size(); ++i) places_.push_back({0, i, i});
}

std::string Rows::place(int64_t i) const {
  const Place& p = places_[static_cast<size_t>(i)];
  return files_[static_cast<size_t>(p.file)]->place(p.row);
}

Value Rows::row(int64_t i) const {
  BK_CHECK(i >= 0 && i < size());
  const Place& p = places_[static_cast<size_t>(i)];
  Value row = files_[static_cast<size_t>(p.file)]->row(p.row);
  if (!row.is(Kind::dict)) throw Error("data", place(i) + ": an object was expected, not " + type_name(row));
  for (const auto& [field, file] : beside_) row = with_field(row, field, file->row(p.row));
  for (const JoinedFile& j : join_) {
    const auto& index = j.file->by_value(j.join.key);
    const Value key = get(row, j.join.key);
    const auto found = key.is(Kind::string) || key.is_number() ? index.find(hash_form(key)) : index.end();
    if (found == index.end())
      throw Error("data", place(i) + ": \"" + j.join.key + "\": no row of " + j.join.file + " has this value");
    const int64_t other = found->second.front();
    const Value value = get(j.file->row(other), j.join.value);
    if (value.is(Kind::undefined)) throw Error("data", j.file->place(other) + ": no field \"" + j.join.value + "\"");
    row = with_field(row, j.join.field, value);
  }
  return row;
}

}  // namespace birkhoff::eval
