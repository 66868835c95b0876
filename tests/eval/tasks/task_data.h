// A folder with files of a test's own, gone at its end.
#pragma once
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "eval/tasks/task.h"

namespace birkhoff::test {

class TaskFolder {
 public:
  TaskFolder()
      : path_(std::filesystem::temp_directory_path() /
              ("task_" + std::to_string(getpid()) + "_" + std::to_string(count()++))) {
    std::filesystem::create_directories(path_);
  }
  ~TaskFolder() { std::filesystem::remove_all(path_); }
  TaskFolder(const TaskFolder&) = delete;
  TaskFolder& operator=(const TaskFolder&) = delete;
  std::string path() const { return path_; }
  std::string put(const std::string& name, const std::string& content) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    std::ofstream(path_ / name, std::ios::binary) << content;
    return path_ / name;
  }
  eval::TaskOptions options() const {
    eval::TaskOptions o;
    o.data_dir = path_;
    return o;
  }

 private:
  static int& count() {
    static int n = 0;
    return n;
  }
  std::filesystem::path path_;
};

inline eval::TaskOptions sample_options() {
  eval::TaskOptions o;
  o.sample = true;
  return o;
}

inline eval::Task only_task(const std::string& name, const eval::TaskOptions& options) {
  eval::TaskSet set = eval::open_tasks({name}, options);
  EXPECT_EQ(set.tasks.size(), 1u) << name;
  return set.tasks.at(0);
}

// What opening a task and asking all its questions complains of; "": nothing.
inline std::string complaint(const std::string& name, const eval::TaskOptions& options) {
  try {
    for (const eval::Task& t : eval::open_tasks({name}, options).tasks) t.questions({});
  } catch (const Error& e) {
    return std::string(e.what()) + " | " + e.hint();
  }
  return "";
}

}  // namespace birkhoff::test
