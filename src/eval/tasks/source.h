// What a task holds: its definition and the rows of its documents and examples.
#pragma once
#include <memory>
#include <optional>

#include "eval/tasks/document.h"
#include "eval/tasks/task.h"

namespace birkhoff::eval {

struct Task::Source {
  Source(TaskDefinition d, const TaskOptions& o, const std::shared_ptr<DataFiles>& f);

  TaskDefinition definition;
  TaskOptions options;
  std::shared_ptr<DataFiles> files;
  DocumentMaker maker;
  Rows rows;
  std::optional<Rows> pool;  // none: written samples, or the last of `rows`
  int64_t documents;         // the first of `rows`
  int64_t shots;
  std::string stand_in;  // which rows stand in for a missing pool; else ""
};

struct TaskReader {
  static Task read(const CatalogueTask& task, const TaskOptions& options, const std::shared_ptr<DataFiles>& files);
};

}  // namespace birkhoff::eval
