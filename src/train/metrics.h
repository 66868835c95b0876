// metrics.jsonl: one record a step.
#pragma once
#include <cstdint>
#include <cstdio>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace birkhoff::train {

struct GainRecord {
  struct Side {
    std::vector<double> site;
    double max_mean = 1, max_max = 1, min_mean = 1, min_min = 1;
  };
  Side forward, backward;
};

struct StepRecord {
  int64_t step = 0, tokens = 0;
  double loss = 0, aux_loss = 0, z_loss = 0;
  std::optional<double> mtp_loss, indexer_loss, val_loss;
  double lr = 0, grad_norm = 0, step_ms = 0, tokens_per_s = 0, gemm_share = 0;
  int64_t rss_mib = 0;
  std::map<std::string, double> phase_ms;
  std::optional<GainRecord> gain;
  std::vector<double> maxvio_layers;  // empty without experts
  std::vector<std::vector<int64_t>> expert_load;
};

nlohmann::json to_json(const StepRecord& r);

// Appends, flushing every record. Opening at step N drops records after N and a torn last line.
class MetricsWriter {
 public:
  MetricsWriter(const std::string& path, int64_t last_step);
  ~MetricsWriter();
  MetricsWriter(const MetricsWriter&) = delete;
  MetricsWriter& operator=(const MetricsWriter&) = delete;
  void write(const StepRecord& r);  // throws Error when the disk is full

 private:
  std::string path_;
  std::FILE* file_ = nullptr;
};

}  // namespace birkhoff::train
