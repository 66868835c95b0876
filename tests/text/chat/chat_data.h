// Reference data of chat formats: the sample in tests/golden/chat, or the full sets when BIRKHOFF_DATA names a
// directory.
#pragma once
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "support/golden.h"
#include "text/jinja/json_value.h"

namespace birkhoff::test {

inline std::string chat_dir() {
  const char* full = std::getenv("BIRKHOFF_DATA");
  return full ? std::string(full) + "/chat" : test::committed_dir() + "/chat";
}

inline std::string slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  std::ostringstream s;
  s << in.rdbuf();
  return s.str();
}

inline std::vector<text::chat::Value> json_lines(const std::string& path) {
  std::vector<text::chat::Value> out;
  std::istringstream in(slurp(path));
  for (std::string line; std::getline(in, line);)
    if (!line.empty()) out.push_back(text::chat::parse_json(line));
  EXPECT_FALSE(out.empty()) << path;
  return out;
}

// Files of a folder with an ending, sorted.
inline std::vector<std::filesystem::path> files_of(const std::string& folder, const std::string& ending) {
  std::vector<std::filesystem::path> out;
  for (const auto& e : std::filesystem::recursive_directory_iterator(folder))
    if (e.path().extension() == ending) out.push_back(e.path());
  std::sort(out.begin(), out.end());
  EXPECT_FALSE(out.empty()) << folder;
  return out;
}

}  // namespace birkhoff::test
