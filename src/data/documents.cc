#include "data/documents.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/data_error.h"
#include "io/mapped_file.h"
#include "io/user_files.h"

namespace birkhoff::data {
namespace {

namespace fs = std::filesystem;

std::string_view text_of(const io::MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

void use_line(std::string_view line, const std::string& name,
              const std::function<void(std::string_view, const std::string&)>& use) {
  const nlohmann::json j = nlohmann::json::parse(line, nullptr, false);
  if (j.is_discarded()) data_error(name + ": is not JSON", "every line of a .jsonl file is one JSON object");
  if (!j.is_object() || !j.contains("text") || !j.at("text").is_string()) {
    const bool conversation = j.is_object() && j.contains("messages");
    data_error(name + ": has no string \"text\"" + (conversation ? " but \"messages\"" : ""),
               conversation ? "conversations and texts belong into files of their own"
                            : "expected {\"text\": \"...\"}, or in a file of conversations {\"messages\": [...]}");
  }
  const auto& text = j.at("text").get_ref<const std::string&>();
  if (!text.empty()) use(text, name);
}

// Those that a user sees: a dot hides a folder.
std::vector<std::string> sub_folders(const std::string& path) {
  std::vector<std::string> names;
  for (const std::string& name : io::list_directory(path))
    if (!name.starts_with(".") && io::is_directory((fs::path(path) / name).string())) names.push_back(name);
  return names;
}

// "a, b, c and 5 more"
std::string names_of(const std::vector<std::string>& names) {
  constexpr size_t kMost = 3;
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kMost); ++i) text += (i ? ", " : "") + names[i];
  return names.size() > kMost ? text + " and " + std::to_string(names.size() - kMost) + " more" : text;
}

}  // namespace

std::pair<std::string, double> split_weight(const std::string& argument) {
  const size_t at = argument.rfind('@');
  if (at == std::string::npos || io::exists(argument)) return {argument, 1.0};
  const std::string text = argument.substr(at + 1);
  char* end = nullptr;
  const double weight = std::strtod(text.c_str(), &end);
  const bool decimal = text.find_first_not_of("0123456789+-.eE") == std::string::npos;
  if (text.empty() || !decimal || *end != '\0' || !std::isfinite(weight) || weight <= 0)
    data_error(argument + ": the weight \"" + text + "\" is no positive number",
               "write PATH or PATH@WEIGHT, for example text.txt@0.5");
  return {argument.substr(0, at), weight};
}

std::vector<std::string> document_files(const std::string& path) {
  if (!io::exists(path)) data_error(path + ": no such file or folder", "check the path");
  if (!io::is_directory(path)) return {path};
  std::vector<std::string> files;
  for (const std::string& name : io::list_directory(path))
    if (const std::string file = (fs::path(path) / name).string(); io::is_file(file)) files.push_back(file);
  if (files.empty()) {
    const std::string below = names_of(sub_folders(path));
    data_error(path + ": the folder holds no files" + (below.empty() ? "" : ", only folders: " + below),
               below.empty() ? "" : "folders in folders are not read: give the path of each");
  }
  return files;
}

std::vector<std::string> unread_folders(const std::vector<std::string>& arguments) {
  std::vector<std::string> notes;
  for (const std::string& argument : arguments) {
    const std::string path = split_weight(argument).first;
    if (!io::is_directory(path)) continue;
    if (const std::string below = names_of(sub_folders(path)); !below.empty())
      notes.push_back(path + ": its files are read, not those of the folders in it: " + below);
  }
  return notes;
}

void for_each_line(const std::string& path, const std::function<bool(std::string_view, size_t)>& use) {
  const io::MappedFile mapped(path);
  const std::string_view all = io::without_mark(text_of(mapped));
  size_t number = 0;
  for (size_t at = 0; at < all.size();) {
    const size_t end = std::min(all.find('\n', at), all.size());
    const std::string_view line = all.substr(at, end - at);
    at = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") != std::string_view::npos && !use(line, number)) return;
  }
}

void for_each_document(const std::string& path, const std::function<void(std::string_view, const std::string&)>& use) {
  for (const std::string& file : document_files(path)) {
    if (fs::path(file).extension() == ".jsonl") {
      for_each_line(file, [&](std::string_view line, size_t number) {
        use_line(line, file + ":" + std::to_string(number), use);
        return true;
      });
    } else if (const io::MappedFile mapped(file); !mapped.bytes().empty()) {
      use(text_of(mapped), file);
    }
  }
}

}  // namespace birkhoff::data
