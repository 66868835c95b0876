#include "checkpoint/panel_cache.h"

#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "io/atomic_file.h"
#include "io/user_files.h"
#include "model/config/json_fields.h"

namespace birkhoff::checkpoint {
namespace {

constexpr char kMagic[] = "BKPANEL1";  // of the file around the panels
constexpr size_t kPage = 4096, kChunkBytes = size_t{16} << 20;

// What stands at the beginning of the file; the key, a checksum for every chunk of the data and, at the next multiple
// of a page, the data follow.
struct PanelHeader {
  char magic[8];
  uint64_t checksum;  // of the bytes behind this field up to the data
  uint64_t key_bytes, data_bytes, data_begin;
};

std::string hex_of(uint64_t v) {
  char text[20];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(v));
  return text;
}

size_t chunks_of(size_t bytes) { return (bytes + kChunkBytes - 1) / kChunkBytes; }

// Size, time and sample of a file: its first and last page and 62 between.
std::string identity_of(const std::string& path) {
  constexpr off_t kSamples = 64;
  struct stat about {};
  const io::Descriptor file = io::open_file(path, about);
  std::string sample;
  char page[kPage];
  for (off_t i = 0; i < kSamples; ++i) {
    const off_t last = std::max<off_t>(0, about.st_size - static_cast<off_t>(kPage));
    const ssize_t n = ::pread(file.get(), page, kPage, last * i / (kSamples - 1));
    if (n < 0) io::file_error(path, "cannot be read", errno);
    sample.append(page, static_cast<size_t>(n));
  }
  return std::to_string(about.st_size) + " " + std::to_string(about.st_mtim.tv_sec) + "." +
         std::to_string(about.st_mtim.tv_nsec) + " " + hex_of(XXH3_64bits(sample.data(), sample.size()));
}

// What quantising makes of a fixed matrix: another layout of panels, or another rounding, is another word.
uint64_t fingerprint(ops::QuantType type) {
  constexpr int64_t kRows = 40, kCols = 2 * kernels::kQuantBlock;
  std::vector<float> values(static_cast<size_t>(kRows * kCols));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(static_cast<int>(i * 7919 % 1009) - 504);
  ops::StoredTensor t;
  t.data = reinterpret_cast<const uint8_t*>(values.data());
  t.rows = kRows, t.cols = kCols, t.type = ops::StoredType::f32;
  ops::StoredMatrix m;
  m.append(t);
  std::vector<uint8_t> panels(static_cast<size_t>(ops::QuantMatrix::bytes(type, kRows, kCols)));
  ops::quantise(Exec(1), {&m, 0, kRows, false}, {panels.data(), type, kRows, kCols});
  return XXH3_64bits(panels.data(), panels.size());
}

std::string key_of(const ModelFiles& files, const model::Model& m) {
  std::string key = "panels of birkhoff\n";
  for (const std::string& path : files.paths()) key += "file " + identity_of(path) + "\n";
  key += "config " + model::config_to_json(m.config).dump() + (m.config.interleaved_rows ? " neighbours\n" : "\n");
  std::string shapes;
  std::set<ops::QuantType> types;
  for (const ops::QuantMatrix& q : m.quantised) {
    types.insert(q.type);
    shapes +=
        std::to_string(static_cast<int>(q.type)) + " " + std::to_string(q.rows) + " " + std::to_string(q.cols) + "\n";
  }
  key += "shapes " + hex_of(XXH3_64bits(shapes.data(), shapes.size())) + "\n";
  for (const ops::QuantType type : types) key += "layout " + hex_of(fingerprint(type)) + "\n";
  return key;
}

// Whether so many chunks, spread over the data, have their checksums.
bool chunks_match(const Exec& exec, ByteRange data, const std::byte* sums, size_t checked) {
  const size_t chunks = chunks_of(data.size());
  std::atomic<bool> match{true};
  exec.parallel_for(static_cast<int64_t>(checked), [&](int64_t i) {
    const size_t chunk = static_cast<size_t>(i) * chunks / checked, begin = chunk * kChunkBytes;
    uint64_t sum;
    std::memcpy(&sum, sums + chunk * sizeof sum, sizeof sum);
    if (XXH3_64bits(data.data() + begin, std::min(kChunkBytes, data.size() - begin)) != sum) match = false;
  });
  return match;
}

// The checksums of chunks of bytes that come in pieces of any size.
class ChunkSums {
 public:
  ChunkSums() : state_(XXH3_createState(), XXH3_freeState) { XXH3_64bits_reset(state_.get()); }
  void add(ByteRange piece) {
    while (!piece.empty()) {
      const ByteRange part = piece.first(std::min(piece.size(), kChunkBytes - filled_));
      XXH3_64bits_update(state_.get(), part.data(), part.size());
      filled_ += part.size();
      piece = piece.subspan(part.size());
      if (filled_ == kChunkBytes) end_chunk();
    }
  }
  const std::vector<uint64_t>& finish() {
    if (filled_) end_chunk();
    return sums_;
  }

 private:
  void end_chunk() {
    sums_.push_back(XXH3_64bits_digest(state_.get()));
    XXH3_64bits_reset(state_.get());
    filled_ = 0;
  }
  std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state_;
  size_t filled_ = 0;
  std::vector<uint64_t> sums_;
};

constexpr const char *kPanelsKey = "panels", *kMatricesKey = "weights", *kHeadKey = "head_weights";

ops::WeightFormat format_of(const nlohmann::json& j, const char* key) {
  const std::string name = model::field_or<std::string>(j, key, "");
  if (const auto f = find_named<ops::WeightFormat>(name)) return *f;
  throw Error("config", std::string(kPanelsKey) + "." + key + " is \"" + name.substr(0, 40) + "\"",
              "auto, stored, q8 or q4");
}

}  // namespace

std::optional<model::WeightFormats> carried_formats(const nlohmann::json& config) {
  if (!config.contains(kPanelsKey)) return std::nullopt;
  const nlohmann::json& j = config[kPanelsKey];
  return model::WeightFormats{format_of(j, kMatricesKey), format_of(j, kHeadKey)};
}

nlohmann::json panels_key(const model::WeightFormats& f) {
  return {{kMatricesKey, name_of(f.matrices)}, {kHeadKey, name_of(f.head)}};
}

PanelCache::PanelCache(std::string directory, const ModelFiles& files, const model::Model& measured, size_t bytes)
    : directory_(std::move(directory)), bytes_(bytes) {
  if (directory_.empty() || bytes == 0) return;
  key_ = key_of(files, measured);
  path_ = directory_ + "/" + hex_of(XXH3_64bits(key_.data(), key_.size())) + ".panels";
}

bool PanelCache::open(const Exec& exec, size_t memory) {
  const size_t chunks = chunks_of(bytes_);
  return map(exec, bytes_ <= memory ? chunks : std::min(chunks, kSampledChunks));
}

bool PanelCache::map(const Exec& exec, size_t checked_chunks) {
  if (path_.empty() || !io::exists(path_)) return false;
  const auto refuse = [&](const std::string& what) {
    complaint_ = path_ + ": " + what;
    file_.reset();
    return false;
  };
  try {
    file_ = std::make_unique<io::MappedFile>(path_);
  } catch (const Error& e) {
    return refuse("cannot be read (" + e.said() + ")");
  }
  const auto file = std::as_bytes(file_->bytes());
  PanelHeader h{};
  if (file.size() < sizeof h) return refuse("is cut short");
  std::memcpy(&h, file.data(), sizeof h);
  if (std::memcmp(h.magic, kMagic, sizeof h.magic) != 0) return refuse("is no file of panels");
  const size_t sums_bytes = chunks_of(bytes_) * sizeof(uint64_t);
  if (h.data_bytes != bytes_ || h.key_bytes != key_.size() || h.data_begin % kPage != 0 ||
      h.data_begin < sizeof h + key_.size() + sums_bytes || file.size() != h.data_begin + h.data_bytes)
    return refuse("has another size than the panels of this model");
  constexpr size_t kChecked = offsetof(PanelHeader, key_bytes);
  if (XXH3_64bits(file.data() + kChecked, h.data_begin - kChecked) != h.checksum) return refuse("is damaged");
  if (std::memcmp(file.data() + sizeof h, key_.data(), key_.size()) != 0) return refuse("is of another model");
  if (!chunks_match(exec, file.subspan(h.data_begin), file.data() + sizeof h + key_.size(), checked_chunks))
    return refuse("is damaged");
  // Read only: nobody writes to panels that are filled.
  panels_ = std::make_unique<Arena>(Arena::over(const_cast<std::byte*>(file.data()) + h.data_begin, bytes_));
  return true;
}

void PanelCache::write_file(const Exec& exec, const model::Model& measured,
                            const model::Model::Progress& progress) const {
  io::create_directories(directory_);
  io::remove_leftovers(directory_, path_.substr(directory_.size() + 1));
  std::string head(sizeof(PanelHeader), '\0');
  head += key_;
  const size_t sums_begin = head.size();
  head.resize((sums_begin + chunks_of(bytes_) * sizeof(uint64_t) + kPage - 1) / kPage * kPage);
  io::StagedFile out(path_);
  out.append(head.data(), head.size());
  ChunkSums sums;
  measured.quantise_each(
      exec,
      [&](ByteRange panels) {
        sums.add(panels);
        out.append(panels.data(), panels.size());
      },
      progress);
  const std::vector<uint64_t>& all = sums.finish();
  BK_CHECK_EQ(all.size(), chunks_of(bytes_));
  std::memcpy(head.data() + sums_begin, all.data(), all.size() * sizeof(uint64_t));
  PanelHeader h{};
  std::memcpy(h.magic, kMagic, sizeof h.magic);
  h.key_bytes = key_.size(), h.data_bytes = bytes_, h.data_begin = head.size();
  std::memcpy(head.data(), &h, sizeof h);
  constexpr size_t kChecked = offsetof(PanelHeader, key_bytes);
  h.checksum = XXH3_64bits(head.data() + kChecked, head.size() - kChecked);
  std::memcpy(head.data(), &h, sizeof h);
  out.rewrite_start(head.data(), head.size());
  out.publish();
}

bool PanelCache::make(const Exec& exec, const model::Model& measured, const model::Model::Progress& progress) {
  if (path_.empty()) return false;
  write_file(exec, measured, progress);
  return map(exec, 0);  // as it was just written
}

Arena& PanelCache::panels() {
  if (!panels_) panels_ = std::make_unique<Arena>(bytes_);
  return *panels_;
}

}  // namespace birkhoff::checkpoint
