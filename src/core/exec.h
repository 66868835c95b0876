// How ops run: the one thread pool of the process, dry runs for planning, and where the time goes.
//
// Work is cut into tasks whose number and extent depend on shapes only, never on the number of threads; that is half of
// the promise that results do not depend on it. The other half is each op's: no task may add into memory another task
// adds into.
#pragma once
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

namespace birkhoff {

// Kinds of work that the trace tells apart; times are wall time of the composing thread.
enum class Work { gemm, attention, residual, routing, elementwise, loss, optimizer, other, count };
const char* work_name(Work w);

class Exec {
 public:
  explicit Exec(int threads);
  // A dry Exec runs no tasks: ops check shapes, take their scratch and return. Used with Arena::measuring().
  static Exec dry_run(int threads);
  ~Exec();
  Exec(Exec&&) noexcept;

  int threads() const;
  bool dry() const;

  // Calls task(i) for every i in [0, n), in any order, on any worker; returns when all are done. Exceptions propagate.
  // Ops call this from the composing thread only; tasks do not nest it.
  void parallel_for(int64_t n, const std::function<void(int64_t)>& task) const;

  // Seconds spent per kind of work since the last reset, and a scope that adds to it.
  std::array<double, static_cast<size_t>(Work::count)>& seconds() const;
  class Span {
   public:
    Span(const Exec& e, Work w) : exec_(e), work_(w), start_(std::chrono::steady_clock::now()) {}
    ~Span() {
      exec_.seconds()[static_cast<size_t>(work_)] +=
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    }
    Span(const Span&) = delete;
    Span& operator=(const Span&) = delete;

   private:
    const Exec& exec_;
    Work work_;
    std::chrono::steady_clock::time_point start_;
  };

 private:
  struct Impl;
  explicit Exec(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Temporary memory of one task, taken from a block that belongs to the worker and is reused by later tasks. 64-byte
// aligned, uninitialised. Scopes nest; everything is released when the scope ends.
class WorkerScratch {
 public:
  WorkerScratch();
  ~WorkerScratch();
  WorkerScratch(const WorkerScratch&) = delete;
  WorkerScratch& operator=(const WorkerScratch&) = delete;
  void* take_bytes(size_t bytes);
  template <class T>
  T* take(int64_t count) {
    return static_cast<T*>(take_bytes(static_cast<size_t>(count) * sizeof(T)));
  }

 private:
  size_t chunk_mark_, used_mark_;
};

}  // namespace birkhoff
