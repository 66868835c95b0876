#include "checkpoint/weight_files.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "io/json_file.h"
#include "io/user_files.h"

namespace birkhoff::checkpoint {

namespace fs = std::filesystem;

namespace {

constexpr size_t kMaxFiles = 10'000;

// Events of an index -> names of files. Only weight_map counts: {tensor: file}.
class IndexReader : public io::JsonEvents {
 public:
  explicit IndexReader(const std::string& path) : path_(path) {}

  bool null() override { return other("null"); }
  bool boolean(bool v) override { return other(v ? "true" : "false"); }
  bool number_integer(number_integer_t v) override { return other(std::to_string(v)); }
  bool number_unsigned(number_unsigned_t v) override { return other(std::to_string(v)); }
  bool number_float(number_float_t, const string_t& text) override { return other(text.substr(0, 40)); }
  bool binary(binary_t&) override { return other("bytes"); }
  bool string(string_t& v) override {
    if (!in_map_ || depth_ != 2) return other("\"" + v.substr(0, 200) + "\"");
    if (v.empty() || v == "." || v == ".." || v.find('/') != std::string::npos || v.find('\0') != std::string::npos)
      refuse(nlohmann::json(v).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace));
    names_.insert(v);
    if (names_.size() > kMaxFiles)
      throw Error("checkpoint", path_ + ": more than " + std::to_string(kMaxFiles) + " files");
    return true;
  }
  bool start_object(std::size_t) override {
    if (depth_ == 1 && key_ == "weight_map")
      in_map_ = true;
    else if (depth_ > 0)
      other("an object");
    ++depth_;
    return true;
  }
  bool end_object() override {
    if (--depth_ == 1) in_map_ = false;
    return true;
  }
  bool start_array(std::size_t) override {
    other("a list");
    ++depth_;
    return true;
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool key(string_t& v) override {
    if (depth_ == 1 || (depth_ == 2 && in_map_)) key_ = v;
    return true;
  }

  std::vector<std::string> take() const {
    if (names_.empty()) no_map();
    return {names_.begin(), names_.end()};
  }

 private:
  [[noreturn]] void no_map() const {
    throw Error("checkpoint", path_ + ": no weight_map", "an object from tensor names to file names was expected");
  }
  [[noreturn]] void refuse(const std::string& value) const {
    throw Error("checkpoint", path_ + ": " + key_.substr(0, 200) + " is mapped to " + value,
                "a file name of the same directory was expected");
  }
  // A value that means nothing where it stands, unless it stands in the place of one that does.
  bool other(const std::string& value) const {
    if (in_map_ && depth_ == 2) refuse(value);
    if (depth_ == 0 || (depth_ == 1 && key_ == "weight_map")) no_map();
    return true;
  }

  const std::string& path_;
  int64_t depth_ = 0;
  bool in_map_ = false;
  std::string key_;
  std::set<std::string> names_;
};

}  // namespace

std::vector<std::string> index_files(const std::string& index_path) {
  IndexReader reader(index_path);
  io::read_json_events(index_path, reader);
  return reader.take();
}

WeightFiles::WeightFiles(const std::string& directory) : directory_(directory) {
  const std::string index = directory + "/model.safetensors.index.json";
  std::vector<std::string> names;
  if (io::exists(index))
    names = index_files(index);
  else if (io::exists(directory + "/model.safetensors"))
    names = {"model.safetensors"};
  else
    throw Error("checkpoint", directory + ": no model.safetensors",
                "is this a model directory? PyTorch .bin files are not read");
  for (const std::string& name : names) {
    paths_.push_back(directory + "/" + name);
    files_.push_back(std::make_unique<io::SafetensorsFile>(paths_.back()));
    bytes_ += files_.back()->bytes();
    for (const io::TensorEntry& e : files_.back()->tensors())
      if (!tensors_.emplace(e.name, &e).second) duplicates_.push_back(e.name);
  }
}

const io::TensorEntry* WeightFiles::find(const std::string& name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : it->second;
}

}  // namespace birkhoff::checkpoint
