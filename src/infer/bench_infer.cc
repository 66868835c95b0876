#include "infer/bench_infer.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/cpu.h"
#include "core/error.h"
#include "core/process.h"
#include "infer/session.h"
#include "model/traffic.h"
#include "ops/rows/read_bandwidth.h"

namespace birkhoff::infer {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point t) { return std::chrono::duration<double>(Clock::now() - t).count(); }

constexpr int kTurns = 3;

uint64_t sum_words(const std::byte* p, size_t bytes) {
  uint64_t lanes[8] = {};
  size_t i = 0;
  for (; i + 64 <= bytes; i += 64) {
    uint64_t words[8];
    std::memcpy(words, p + i, 64);
    for (int l = 0; l < 8; ++l) lanes[l] += words[l];
  }
  for (; i < bytes; ++i) lanes[0] += static_cast<uint64_t>(p[i]);
  uint64_t sum = 0;
  for (const uint64_t l : lanes) sum += l;
  return sum;
}

// Seconds of mapping the files and reading all of them.
double time_pass(const std::string& directory, const Exec& exec, uint64_t& sum) {
  const auto start = Clock::now();
  const checkpoint::ModelFiles files(directory);
  constexpr size_t kPieceBytes = size_t{4} << 20;
  std::vector<std::span<const std::byte>> pieces;
  for (const std::span<const std::byte> tensor : files.regions())
    for (size_t at = 0; at < tensor.size(); at += kPieceBytes)
      pieces.push_back(tensor.subspan(at, std::min(kPieceBytes, tensor.size() - at)));
  std::atomic<uint64_t> total{0};
  exec.parallel_for(static_cast<int64_t>(pieces.size()), [&](int64_t i) {
    total += sum_words(pieces[static_cast<size_t>(i)].data(), pieces[static_cast<size_t>(i)].size());
  });
  sum += total;  // so that the reading is not left out
  return seconds_since(start);
}

struct Opened {
  std::unique_ptr<Engine> engine;
  std::unique_ptr<Session> session;
};
double time_opening(const std::string& directory, const EngineOptions& options, int64_t capacity, Opened& o) {
  const auto start = Clock::now();
  o.engine = std::make_unique<Engine>(directory, options);
  if (capacity > o.engine->max_positions())
    throw Error("bench",
                "prompt and decoded tokens make " + std::to_string(capacity) + " positions, the model has " +
                    "max_position_embeddings " + std::to_string(o.engine->max_positions()),
                "lower --prompt or --decode", ExitCode::usage);
  o.session = std::make_unique<Session>(*o.engine, capacity);
  const int32_t first = 0;
  o.session->feed({&first, 1});
  return seconds_since(start);
}

}  // namespace

namespace {

std::vector<int32_t> synthetic_ids(int64_t count, int64_t vocab) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>((static_cast<int64_t>(i) * 7919 + 13) % vocab);
  return ids;
}

// A prompt and decoded tokens behind `depth` others in the session; bytes: of weights a decoded token.
nlohmann::json time_depth(Session& session, const InferLoad& load, int64_t depth, double bytes, double bandwidth,
                          int64_t vocab, bool streamed) {
  nlohmann::json r = {{"depth", depth}};
  if (depth) session.feed(synthetic_ids(depth, vocab));
  if (load.prompt) {
    const auto start = Clock::now();
    session.feed(synthetic_ids(load.prompt, vocab));
    r["prompt_tokens_per_s"] = static_cast<double>(load.prompt) / seconds_since(start);
  }
  std::vector<double> steps;
  StreamMeter meter;
  for (int64_t i = 0; i < load.decode; ++i) {
    const int32_t id = static_cast<int32_t>(i * 31 % vocab);
    const auto start = Clock::now();
    session.feed({&id, 1}, TokenRole::generated);
    steps.push_back(seconds_since(start));
  }
  meter.add(load.decode);
  if (steps.empty()) return r;
  if (streamed) {
    r["decode_tokens_per_s"] = meter.tokens_per_s();
    r["disk_bytes_per_token"] = meter.disk_bytes_per_token();
  }
  std::sort(steps.begin(), steps.end());
  const double median = steps[steps.size() / 2];
  r["decode_ms"] = {{"min", steps.front() * 1e3}, {"median", median * 1e3}, {"max", steps.back() * 1e3}};
  r["weight_gbs"] = bytes / median * 1e-9;
  r["of_read_bandwidth"] = bytes / median / bandwidth;
  return r;
}

// What a text keeps: of every token, and whatever its length.
struct CacheBytes {
  double per_token = 0, constant = 0;
};
CacheBytes cache_bytes(const Engine& engine, int64_t capacity) {
  const auto at = [&](int64_t tokens) { return static_cast<double>(engine.caches().text_bytes(tokens)); };
  // Pages come whole, entries of windows too: far apart the slope is exact.
  const int64_t far = std::max<int64_t>(capacity, 64) * 1024;
  CacheBytes b;
  b.per_token = (at(2 * far) - at(far)) / static_cast<double>(far);
  b.constant = at(far) - b.per_token * static_cast<double>(far);
  return b;
}

// Sessions that decode in passes together, each behind its own prompt of `prompt` tokens.
nlohmann::json time_together(const Engine& engine, const InferLoad& load, int64_t prompt) {
  const int64_t vocab = engine.model().config.vocab_size;
  std::vector<Session> sessions;
  for (int64_t i = 0; i < load.sessions; ++i) {
    sessions.emplace_back(engine, prompt + load.decode + 1);
    std::vector<int32_t> ids = synthetic_ids(prompt + i, vocab);
    ids.erase(ids.begin(), ids.begin() + i);
    sessions.back().feed(ids);
  }
  std::vector<double> steps;
  for (int64_t t = 0; t < load.decode; ++t) {
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < load.sessions; ++i) ids.push_back(static_cast<int32_t>((t * 31 + i * 977) % vocab));
    std::vector<BatchPiece> pieces;
    for (size_t i = 0; i < sessions.size(); ++i)
      pieces.push_back({&sessions[i], {&ids[i], 1}, TokenRole::generated, 1});
    const auto start = Clock::now();
    run_batch(engine, pieces, [](size_t, int64_t, std::span<const float>) {});
    steps.push_back(seconds_since(start));
  }
  std::sort(steps.begin(), steps.end());
  const double median = steps[steps.size() / 2];
  return {{"sessions", load.sessions},
          {"step_ms", median * 1e3},
          {"tokens_per_s", static_cast<double>(load.sessions) / median}};
}

}  // namespace

nlohmann::json bench_infer(const std::string& directory, EngineOptions options, const InferLoad& load) {
  const int64_t deepest = load.depths.empty() ? 0 : *std::max_element(load.depths.begin(), load.depths.end());
  const int64_t capacity = deepest + load.prompt + load.decode + 1;
  options.enough_positions = capacity;
  const std::string weights = checkpoint::resolve_model(directory);
  const Exec exec(options.threads);
  uint64_t sum = 0;
  double pass = 1e30, opening = 1e30;
  Opened o;
  for (int i = 0; i < (options.stream ? 1 : kTurns); ++i) {
    o.session.reset();
    o.engine.reset();  // the mapping goes before it is made again
    pass = std::min(pass, time_pass(weights, exec, sum));
    reset_peak_rss();
    opening = std::min(opening, time_opening(weights, options, capacity, o));
  }
  const int64_t rss_opened = peak_rss_mib();
  const model::Model& m = o.engine->model();
  const double bytes = model::weight_traffic(m).per_token();
  const double bandwidth = ops::read_bandwidth(exec);
  reset_peak_rss();  // of what was read, not of the block that was
  nlohmann::json depths = nlohmann::json::array();
  for (const int64_t depth : load.depths) {
    o.session = std::make_unique<Session>(*o.engine, capacity);
    depths.push_back(time_depth(*o.session, load, depth, bytes, bandwidth, m.config.vocab_size, options.stream));
  }
  nlohmann::json r = {{"file_mib", checkpoint::ModelFiles(weights).bytes() >> 20},
                      {"pass_ms", pass * 1e3},
                      {"open_and_token_ms", opening * 1e3},
                      {"rss_opened_mib", rss_opened},
                      {"checksum", sum},
                      {"weight_bytes_per_token", bytes},
                      {"read_gbs", bandwidth * 1e-9},
                      {"depths", depths},
                      {"dtype", dtype_name(m.compute)},
                      {"threads", options.threads},
                      {"cpu", cpu_model()},
                      {"isa", isa_name(active_isa())}};
  const CacheBytes cache = cache_bytes(*o.engine, capacity);
  r["cache_type"] =
      o.engine->caches().page_bytes() ? ops::cache_type_name(o.engine->caches().type()) : dtype_name(m.compute);
  r["cache_bytes_per_token"] = cache.per_token;
  r["cache_bytes_constant"] = cache.constant;
  if (load.sessions > 1 && load.decode > 0)
    r["together"] = time_together(*o.engine, load, std::max<int64_t>(1, load.depths.empty() ? 1 : load.depths[0]));
  r["rss_mib"] = std::max(rss_opened, peak_rss_mib());
  r["planned_mib"] = o.engine->planned_bytes() >> 20;
  if (const auto& s = o.engine->streamed())
    r["streamed"] = {{"disk_gbs", s->disk_rate * 1e-9},
                     {"memory_bytes", s->memory},
                     {"expected_disk_bytes_per_token", s->disk_bytes()}};
  if (!o.engine->note().empty()) r["note"] = o.engine->note();
  return r;
}

}  // namespace birkhoff::infer
