// What tasks/ holds, compiled in: task files, and a few questions of our own writing for each.
#pragma once
#include <string_view>
#include <vector>

namespace birkhoff::eval {

struct BuiltInFile {
  std::string_view path;  // below tasks/: "gsm8k.json", "samples/gsm8k/test.jsonl"
  std::string_view content;
};
const std::vector<BuiltInFile>& built_in_files();

}  // namespace birkhoff::eval
