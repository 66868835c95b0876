#include "train/metrics.h"

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/error.h"
#include "io/atomic_file.h"
#include "io/user_files.h"
#include "report/run_data.h"

namespace birkhoff::train {
namespace {

using nlohmann::json;

json side_json(const GainRecord::Side& s) {
  return {{"site", s.site},
          {"composite_max", {{"mean", s.max_mean}, {"max", s.max_max}}},
          {"composite_min", {{"mean", s.min_mean}, {"min", s.min_min}}}};
}

json optional_json(const std::optional<double>& v) { return v ? json(*v) : json(nullptr); }

}  // namespace

json to_json(const StepRecord& r) {
  json j = {{"step", r.step},
            {"tokens", r.tokens},
            {"loss", r.loss},
            {"aux_loss", r.aux_loss},
            {"z_loss", r.z_loss},
            {"mtp_loss", optional_json(r.mtp_loss)},
            {"lr", r.lr},
            {"grad_norm", r.grad_norm},
            {"step_ms", r.step_ms},
            {"tokens_per_s", r.tokens_per_s},
            {"gemm_share", r.gemm_share},
            {"rss_mib", r.rss_mib},
            {"phase_ms", r.phase_ms}};
  if (r.indexer_loss) j["indexer_loss"] = *r.indexer_loss;
  if (r.val_loss) j["val_loss"] = *r.val_loss;
  if (r.gain) j["gain"] = {{"forward", side_json(r.gain->forward)}, {"backward", side_json(r.gain->backward)}};
  if (!r.maxvio_layers.empty()) {
    const double sum = std::accumulate(r.maxvio_layers.begin(), r.maxvio_layers.end(), 0.0);
    j["maxvio"] = {{"mean", sum / static_cast<double>(r.maxvio_layers.size())}, {"layers", r.maxvio_layers}};
  }
  if (!r.expert_load.empty()) j["expert_load"] = r.expert_load;
  return j;
}

MetricsWriter::MetricsWriter(const std::string& path, int64_t last_step) : path_(path) {
  std::string kept;
  if (io::exists(path))
    for (const json& j : report::read_metrics(path))
      if (j["step"].get<int64_t>() <= last_step) kept += j.dump() + "\n";
  io::write_file_atomic(path, kept);
  file_ = std::fopen(path.c_str(), "ab");
  if (!file_) io::file_error(path, "cannot be written", errno);
}

MetricsWriter::~MetricsWriter() {
  if (file_) std::fclose(file_);
}

void MetricsWriter::write(const StepRecord& r) {
  const std::string line = to_json(r).dump() + "\n";
  if (std::fwrite(line.data(), 1, line.size(), file_) != line.size() || std::fflush(file_) != 0)
    throw Error("metrics", path_ + ": write failed: " + std::strerror(errno), "free some space, then --resume",
                ExitCode::failed);
}

}  // namespace birkhoff::train
