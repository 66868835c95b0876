// The documents behind a data path: a file is one, a folder its regular files in name order, not those of folders in
// it; a .jsonl file one a line, its "text".
#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace birkhoff::data {

// "PATH@0.5" -> PATH and 0.5; PATH and 1 without a weight, or where a file of the whole name exists. Throws Error: no
// positive number.
std::pair<std::string, double> split_weight(const std::string& argument);

// The files of a path in order. Throws Error: missing, unreadable, an empty folder.
std::vector<std::string> document_files(const std::string& path);

// Of each PATH[@WEIGHT] that is a folder with folders in it, which are not read, a line that says so. Throws Error.
std::vector<std::string> unread_folders(const std::vector<std::string>& arguments);

// Calls use(line, number) for every line of a file that is not blank, until it returns false. A byte order mark is
// passed over. Throws Error.
void for_each_line(const std::string& path, const std::function<bool(std::string_view, size_t)>& use);

// Calls use(text, name) for every document in order; name: the file, with the line for .jsonl. Empty documents are
// passed over. Throws Error naming file and line of a .jsonl line that has no string "text".
void for_each_document(const std::string& path,
                       const std::function<void(std::string_view text, const std::string& name)>& use);

}  // namespace birkhoff::data
