#include "core/exec.h"

#include <sys/mman.h>
#include <tbb/global_control.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <future>
#include <memory>
#include <optional>
#include <system_error>
#include <thread>
#if defined(__SANITIZE_THREAD__)
#include <exception>
#include <mutex>
#endif
#include <vector>

#include "core/cpu.h"
#include "core/error.h"

namespace birkhoff {

const char* work_name(Work w) {
  constexpr const char* kNames[] = {"gemm",        "attention", "residual",  "routing",
                                    "elementwise", "loss",      "optimizer", "other"};
  return kNames[static_cast<size_t>(w)];
}

namespace {
#if defined(__SANITIZE_THREAD__)
// The library of oneTBB is not instrumented: the sanitizer cannot see what orders its tasks. Plain threads stand in for
// it, the tasks of one call as unordered among themselves as ever.
void run_tasks(tbb::task_arena&, int threads, int64_t n, const std::function<void(int64_t)>& task) {
  std::atomic<int64_t> next{0};
  std::mutex lock;
  std::exception_ptr failure;
  const auto work = [&] {
    try {
      for (int64_t i = next++; i < n; i = next++) task(i);
    } catch (...) {
      next = n;
      const std::lock_guard guard(lock);
      failure = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  for (int t = 1; t < threads && t < n; ++t) others.emplace_back(work);
  work();
  for (std::thread& t : others) t.join();
  if (failure) std::rethrow_exception(failure);
}
#else
void run_tasks(tbb::task_arena& arena, int, int64_t n, const std::function<void(int64_t)>& task) {
  arena.execute([&] {
    tbb::parallel_for(
        tbb::blocked_range<int64_t>(0, n, 1),
        [&](const tbb::blocked_range<int64_t>& r) {
          for (int64_t i = r.begin(); i < r.end(); ++i) task(i);
        },
        tbb::simple_partitioner());
  });
}
#endif
}  // namespace

namespace {
// The library of oneTBB cannot recover from a thread that does not start, so that many are tried first.
void check_threads_start(int n) {
  static std::atomic<int> started{1};
  if (n <= started) return;
  std::vector<std::thread> threads;
  std::promise<void> all_there;
  const std::shared_future<void> wait = all_there.get_future().share();
  std::string refusal;
  try {
    while (static_cast<int>(threads.size()) < n - 1) threads.emplace_back([wait] { wait.wait(); });
  } catch (const std::system_error& e) {
    refusal = e.code().message();
  }
  all_there.set_value();
  for (std::thread& t : threads) t.join();
  if (!refusal.empty())
    throw Error("threads",
                std::to_string(n) + " threads were asked for, the system starts " + std::to_string(threads.size() + 1) +
                    ": " + refusal,
                "give --threads " + std::to_string(threads.size() + 1) + " or allow more (ulimit -u)");
  started = n;
}
}  // namespace

struct Exec::Impl {
  Impl(int n, bool d) : threads(n), dry(d) {
    if (n == 1 || d) return;
    check_threads_start(n);
    // The library stops at the number of cores unless told otherwise; more are asked for in tests.
    limit.emplace(tbb::global_control::max_allowed_parallelism,
                  std::max<size_t>(static_cast<size_t>(n), static_cast<size_t>(cpu_cores())));
    arena.emplace(n);
  }
  int threads;
  bool dry;
  std::optional<tbb::global_control> limit;
  std::optional<tbb::task_arena> arena;
  std::array<double, static_cast<size_t>(Work::count)> seconds{};
};

Exec::Exec(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Exec::Exec(int threads) {
  BK_CHECK_LE(1, threads);
  impl_ = std::make_unique<Impl>(threads, false);
}
Exec Exec::dry_run(int threads) { return Exec(std::make_unique<Impl>(threads, true)); }
Exec::~Exec() = default;
Exec::Exec(Exec&&) noexcept = default;

int Exec::threads() const { return impl_->threads; }
bool Exec::dry() const { return impl_->dry; }
std::array<double, static_cast<size_t>(Work::count)>& Exec::seconds() const { return impl_->seconds; }

void Exec::parallel_for(int64_t n, const std::function<void(int64_t)>& task) const {
  if (impl_->dry || n <= 0) return;
  if (impl_->threads == 1 || n == 1) {
    for (int64_t i = 0; i < n; ++i) task(i);
    return;
  }
  run_tasks(*impl_->arena, impl_->threads, n, task);
}

namespace {
// Blocks never move while a scope is open, so pointers stay valid; a worker ends up with the few blocks its largest
// task needs.
struct WorkerMemory {
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  struct Block {
    std::unique_ptr<std::byte, Free> data;
    size_t capacity;
  };
  std::vector<Block> blocks;
  size_t block = 0, used = 0;  // next free byte: blocks[block].data + used
};
WorkerMemory& worker_memory() {
  thread_local WorkerMemory m;
  return m;
}
constexpr size_t kHugePage = size_t{2} << 20;
}  // namespace

WorkerScratch::WorkerScratch() : chunk_mark_(worker_memory().block), used_mark_(worker_memory().used) {}
WorkerScratch::~WorkerScratch() {
  worker_memory().block = chunk_mark_;
  worker_memory().used = used_mark_;
}

void* WorkerScratch::take_bytes(size_t bytes) {
  WorkerMemory& m = worker_memory();
  bytes = (bytes + 63) / 64 * 64;
  while (m.block < m.blocks.size() && m.used + bytes > m.blocks[m.block].capacity) {
    ++m.block;
    m.used = 0;
  }
  if (m.block == m.blocks.size()) {
    const size_t capacity = (std::max(bytes, kHugePage) + kHugePage - 1) / kHugePage * kHugePage;
    auto* p = static_cast<std::byte*>(std::aligned_alloc(kHugePage, capacity));
    if (!p) throw Error("memory", "a worker could not get " + std::to_string(capacity) + " bytes");
    madvise(p, capacity, MADV_HUGEPAGE);  // only advice: refusal costs speed, not correctness
    m.blocks.push_back({std::unique_ptr<std::byte, WorkerMemory::Free>(p), capacity});
    m.used = 0;
  }
  void* p = m.blocks[m.block].data.get() + m.used;
  m.used += bytes;
  return p;
}

}  // namespace birkhoff
