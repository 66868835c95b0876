#include <tbb/version.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "apps/verbs.h"
#include "core/cpu.h"
#include "core/process.h"
#include "train/bench_train.h"

namespace birkhoff::apps {
namespace {

// What multiplies weights of a format at a level, with one row of activations and with many.
struct WeightKernel {
  const char *formats, *one, *many;
};
std::vector<WeightKernel> weight_kernels(Isa isa) {
  constexpr const char *kCodes = "q4, q4_1, q8, fp4", *kOthers = "other formats as stored",
                       *kExpanded = "expanded in the cache, then as bf16";
  switch (isa) {
    case Isa::scalar:
      return {{kCodes, "one value at a time", "the same"},
              {"bf16", "widened to fp32, one value at a time", "the same"},
              {kOthers, kExpanded, "the same"}};
    case Isa::avx2:
      return {{kCodes, "AVX2 maddubs", "the same, 4 rows at a time"},
              {"bf16", "rows of weights where they lie, widened to fp32", "panels widened to fp32"},
              {kOthers, kExpanded, "the same"}};
    case Isa::avx512:
      return {{kCodes, "AVX-512 VNNI", "the same, 8 rows at a time"},
              {"bf16", "AVX-512 BF16", "the same"},
              {kOthers, kExpanded, "the same"}};
    case Isa::amx:
      return {{kCodes, "AVX-512 VNNI", "AMX int8 tiles, from 8 rows on"},
              {"bf16", "AMX bf16 tiles", "the same"},
              {kOthers, kExpanded, "the same"}};
  }
  return {};
}

// Why the kernels are not those of the widest level.
std::string narrowed_by() {
  if (active_isa() < usable_isa()) return "BIRKHOFF_ISA";
  if (usable_isa() < detected_isa()) return "this build (BIRKHOFF_WIDEST_ISA)";
  return missing_for(Isa::amx);
}

void advise(Isa detected, Isa active, double bf16, double fp32) {
  if (usable_isa() < detected)
    std::printf(
        "  note: of this program's kernels this machine can run those of %s; it has %s (cmake "
        "-DBIRKHOFF_WIDEST_ISA=amx "
        "builds them all)\n",
        isa_name(usable_isa()), isa_name(detected));
  if (active < usable_isa())
    std::printf("  note: BIRKHOFF_ISA caps the kernels at %s; this machine has %s\n", isa_name(active),
                isa_name(detected));
  if (detected < Isa::amx) {
    const Isa next = static_cast<Isa>(static_cast<int>(detected) + 1);
    std::printf("  note: for %s kernels this machine lacks %s\n", isa_name(next), missing_for(next).c_str());
  }
  if (active == Isa::scalar) std::printf("  slow: kernels without AVX2 run one value at a time\n");
  if (active == Isa::avx2)
    std::printf("  slow: no AVX-512 BF16; bf16 products are widened to fp32 (dtype=fp32 is no slower)\n");
  if (active == Isa::avx512) std::printf("  note: no AMX; bf16 products run on AVX-512 dot products\n");
  if (bf16 > 4 * fp32)
    std::printf("  note: bf16 products are %.0fx as fast as fp32 ones: train with dtype=bf16\n", bf16 / fp32);
}

int doctor(bool as_json, int threads) {
  const Exec exec(threads);
  const train::MachinePeaks bf16 = train::measure_peaks(exec, DType::bf16),
                            fp32 = train::measure_peaks(exec, DType::f32);
  const double memory = static_cast<double>(machine_memory_bytes()) / (1 << 30);
  const std::string tbb = std::to_string(TBB_VERSION_MAJOR) + "." + std::to_string(TBB_VERSION_MINOR);
  const std::vector<WeightKernel> weights = weight_kernels(active_isa());
  if (as_json) {
    nlohmann::json products = nlohmann::json::array();
    for (const WeightKernel& w : weights)
      products.push_back({{"weights", w.formats}, {"row", w.one}, {"rows", w.many}});
    std::printf("%s\n", nlohmann::json{{"cpu", cpu_model()},
                                       {"cores", cpu_cores()},
                                       {"threads", threads},
                                       {"isa",
                                        {{"detected", isa_name(detected_isa())},
                                         {"compiled", isa_name(compiled_isa())},
                                         {"active", isa_name(active_isa())},
                                         {"narrowed_by", narrowed_by()}}},
                                       {"kernels", products},
                                       {"memory_gib", memory},
                                       {"read_gbs", bf16.read_gbs},
                                       {"gemm_gflops", {{"bf16", bf16.gemm_gflops}, {"fp32", fp32.gemm_gflops}}},
                                       {"libraries", {{"oneTBB", tbb}, {"compiler", __VERSION__}}}}
                            .dump()
                            .c_str());
    return 0;
  }
  std::printf("processor   %s, %d cores, %d threads used\n", cpu_model().c_str(), cpu_cores(), threads);
  std::printf("kernels     %s (detected %s)\n", isa_name(active_isa()), isa_name(detected_isa()));
  std::printf("memory      %.1f GiB, %.1f GB/s sequential read\n", memory, bf16.read_gbs);
  std::printf("products    %.0f GFLOP/s bf16, %.0f GFLOP/s fp32\n", bf16.gemm_gflops, fp32.gemm_gflops);
  for (const WeightKernel& w : weights)
    std::printf("%-11s %-24s a row: %s; rows: %s\n", &w == &weights.front() ? "weights" : "", w.formats, w.one, w.many);
  std::printf("libraries   oneTBB %s, compiler %s\n", tbb.c_str(), __VERSION__);
  advise(detected_isa(), active_isa(), bf16.gemm_gflops, fp32.gemm_gflops);
  return 0;
}

}  // namespace

void add_doctor(CLI::App& app, Program& p) {
  auto json = std::make_shared<bool>(false);
  CLI::App* verb = app.add_subcommand("doctor", "What this machine can do, and what will be slow and why");
  verb->add_flag("--json", *json, "JSON instead of text");
  verb->add_option("--threads", p.threads, "default: all cores");
  verb->callback([json, &p] { p.run = [json, &p] { return doctor(*json, p.thread_count()); }; });
}

}  // namespace birkhoff::apps
