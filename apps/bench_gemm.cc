#include <chrono>
#include <cstdio>

#include "apps/verbs.h"
#include "core/arena.h"
#include "core/cpu.h"
#include "ops/gemm/gemm.h"
#include "ops/gemm/weight_grad.h"

namespace birkhoff::apps {
namespace {

struct GemmRow {
  const char* name;
  int64_t m, k, n;
};
// Products of the presets tiny and small, and two large ones.
constexpr GemmRow kShapes[] = {{"tiny up", 2048, 256, 1408},    {"tiny down", 2048, 704, 256},
                               {"tiny expert", 512, 256, 256},  {"small up", 4096, 512, 3072},
                               {"small down", 4096, 1536, 512}, {"small expert", 512, 512, 512},
                               {"large", 2048, 2048, 2048},     {"one row", 1, 4096, 4096}};

double best_gflops(double flops, const std::function<void()>& run) {
  double best = 0;
  for (int i = 0; i < 10; ++i) {
    const auto t = std::chrono::steady_clock::now();
    run();
    best = std::max(best, flops / std::chrono::duration<double>(std::chrono::steady_clock::now() - t).count() * 1e-9);
  }
  return best;
}

}  // namespace

int bench_gemm(const std::string& dtype_name, bool as_json, int threads) {
  const Exec exec(threads);
  const DType dtype = dtype_name == "fp32" ? DType::f32 : DType::bf16;
  nlohmann::json rows = nlohmann::json::array();
  if (!as_json)
    std::printf("%-14s %6s %6s %6s %12s %12s   GFLOP/s, %s, %s, %d threads\n", "product", "M", "K", "N", "x W^T",
                "dW += dy^T x", dtype_name.c_str(), isa_name(active_isa()), threads);
  for (const GemmRow& s : kShapes) {
    Arena memory(
        static_cast<size_t>(4 * (s.m * s.k + s.m * s.n + 2 * s.n * s.k) + ops::Packed::bytes(dtype, s.k, s.n)) +
        (1 << 20));
    Arena scratch(static_cast<size_t>(ops::weight_grad_scratch_bytes(dtype, s.m, s.n, s.k)) + (1 << 20));
    Mat x = memory.mat(dtype, s.m, s.k), y = memory.mat(dtype, s.m, s.n), w = memory.mat(f32_t, s.n, s.k),
        dw = memory.mat(f32_t, s.n, s.k);
    const ops::Packed packed = ops::Packed::take(memory, dtype, s.k, s.n);
    ops::pack_transposed(exec, w, packed);
    const double flops = 2.0 * static_cast<double>(s.m * s.k * s.n);
    const double forward = best_gflops(flops, [&] { ops::gemm(exec, x, packed, y); });
    const double weight = best_gflops(flops, [&] {
      scratch.reset();
      ops::gemm_weight_grad(exec, y, x, dw, scratch);
    });
    if (as_json)
      rows.push_back({{"name", s.name},
                      {"m", s.m},
                      {"k", s.k},
                      {"n", s.n},
                      {"forward_gflops", forward},
                      {"weight_grad_gflops", weight}});
    else
      std::printf("%-14s %6lld %6lld %6lld %12.0f %12.0f\n", s.name, static_cast<long long>(s.m),
                  static_cast<long long>(s.k), static_cast<long long>(s.n), forward, weight);
  }
  if (as_json)
    std::printf("%s\n", nlohmann::json{{"dtype", dtype_name},
                                       {"isa", isa_name(active_isa())},
                                       {"threads", threads},
                                       {"cpu", cpu_model()},
                                       {"shapes", rows}}
                            .dump()
                            .c_str());
  return 0;
}

}  // namespace birkhoff::apps
