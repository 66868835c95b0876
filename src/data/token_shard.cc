#include "data/token_shard.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "core/rng.h"
#include "data/data_error.h"
#include "data/documents.h"
#include "io/atomic_file.h"
#include "io/user_files.h"
#include "text/tokenizer/fim.h"

namespace birkhoff::data {
namespace {

namespace fs = std::filesystem;
constexpr char kMagic[9] = "BKTOKEN1";
constexpr size_t kBatchBytes = 32 << 20;  // of text handed to the threads at a time
constexpr uint64_t kFimSite = 0xF1;

struct Header {
  char magic[8];
  int64_t ids, documents;
};

// 128 bits over everything that the ids depend on.
std::string key_of(const std::string& path, const Tokenization& t) {
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), &XXH3_freeState);
  XXH3_128bits_reset(state.get());
  const auto add = [&](const void* p, size_t n) {
    const auto length = static_cast<uint64_t>(n);
    XXH3_128bits_update(state.get(), &length, sizeof length);
    XXH3_128bits_update(state.get(), p, n);
  };
  add(kMagic, 8);
  BK_CHECK(!t.tokenizer->files().empty());  // else two tokenizers would share their shards
  for (const std::string& file : t.tokenizer->files()) {
    const io::MappedFile mapped(file);
    add(mapped.bytes().data(), mapped.bytes().size());
  }
  const int32_t eos = *t.tokenizer->eos();
  add(&eos, sizeof eos);
  add(&t.fim_rate, sizeof t.fim_rate);
  if (t.fim_rate > 0) add(&t.seed, sizeof t.seed);
  for_each_document(path, [&](std::string_view text, const std::string&) { add(text.data(), text.size()); });
  const XXH128_hash_t h = XXH3_128bits_digest(state.get());
  char name[40];
  std::snprintf(name, sizeof name, "%016llx%016llx.tokens", static_cast<unsigned long long>(h.high64),
                static_cast<unsigned long long>(h.low64));
  return name;
}

// A place between two characters.
size_t cut_place(std::string_view text, uint64_t draw) {
  size_t at = static_cast<size_t>(draw % (text.size() + 1));
  while (at > 0 && at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

// Documents that wait for the threads, and what is done with them.
class TokenizedBatch {
 public:
  TokenizedBatch(const Tokenization& t, std::vector<int32_t>& ids, std::vector<int64_t>& starts)
      : t_(t), ids_(ids), starts_(starts) {
    if (t.fim_rate > 0) fim_ = text::find_fim_tokens(*t.tokenizer);
  }
  void add(std::string_view text, const std::string& name) {
    texts_.emplace_back(text);
    names_.push_back(name);
    bytes_ += text.size();
    if (bytes_ >= kBatchBytes) flush();
  }
  void flush() {
    std::vector<std::string_view> parts;
    for (size_t i = 0; i < texts_.size(); ++i) append_parts(texts_[i], first_ + i, parts);
    const std::vector<std::vector<int32_t>> encoded = encode(parts);
    size_t at = 0;
    for (size_t i = 0; i < texts_.size(); ++i) {
      starts_.push_back(static_cast<int64_t>(ids_.size()));
      const bool split = chosen(first_ + i);
      const auto part = [&](const std::vector<int32_t>& p) { ids_.insert(ids_.end(), p.begin(), p.end()); };
      if (split) {
        ids_.push_back(fim_->begin);
        part(encoded[at]);
        ids_.push_back(fim_->hole);
        part(encoded[at + 2]);
        ids_.push_back(fim_->end);
        part(encoded[at + 1]);
      } else {
        part(encoded[at]);
      }
      at += split ? 3 : 1;
      ids_.push_back(*t_.tokenizer->eos());
    }
    first_ += texts_.size();
    texts_.clear();
    names_.clear();
    bytes_ = 0;
  }

 private:
  bool chosen(uint64_t document) const { return fim_ && Rng(t_.seed, kFimSite).uniform(3 * document) < t_.fim_rate; }
  void append_parts(std::string_view text, uint64_t document, std::vector<std::string_view>& parts) const {
    if (!chosen(document)) {
      parts.push_back(text);
      return;
    }
    const Rng rng(t_.seed, kFimSite);
    size_t a = cut_place(text, rng.bits(3 * document + 1)), b = cut_place(text, rng.bits(3 * document + 2));
    if (a > b) std::swap(a, b);
    parts.insert(parts.end(), {text.substr(0, a), text.substr(a, b - a), text.substr(b)});
  }
  std::vector<std::vector<int32_t>> encode(const std::vector<std::string_view>& parts) const {
    for (size_t i = 0; i < texts_.size(); ++i) {
      try {
        text::check_text(texts_[i]);
      } catch (const Error& e) {
        data_error(names_[i] + ": " + e.what(), e.hint());
      }
    }
    return t_.tokenizer->encode_batch(parts, t_.threads);
  }

  const Tokenization& t_;
  std::vector<int32_t>& ids_;
  std::vector<int64_t>& starts_;
  std::optional<text::FimTokens> fim_;
  std::vector<std::string> texts_, names_;
  size_t bytes_ = 0;
  uint64_t first_ = 0;
};

}  // namespace

TokenShard::TokenShard(const std::string& path, const Tokenization& t) {
  BK_CHECK(t.tokenizer != nullptr);
  if (!t.tokenizer->eos())
    data_error("the tokenizer has no end token, which stands between documents",
               "name it as \"eos_token\" in tokenizer_config.json");
  const std::string file = t.cache.empty() ? "" : (fs::path(t.cache) / key_of(path, t)).string();
  try {
    if (!file.empty() && map(file)) return;
  } catch (const Error&) {  // somebody else's: made anew
  }
  tokenize(path, t);
  if (file.empty()) return;
  try {
    io::create_directories(t.cache);
    save(file);
  } catch (const Error& e) {
    if (t.note) t.note(e.what());
  }
}

void TokenShard::save(const std::string& file) const {
  Header h{{}, static_cast<int64_t>(own_ids_.size()), static_cast<int64_t>(own_starts_.size()) - 1};
  std::memcpy(h.magic, kMagic, sizeof h.magic);
  std::string content(reinterpret_cast<const char*>(&h), sizeof h);
  content.append(reinterpret_cast<const char*>(own_starts_.data()), own_starts_.size() * sizeof(int64_t));
  content.append(reinterpret_cast<const char*>(own_ids_.data()), own_ids_.size() * sizeof(int32_t));
  io::write_file_atomic(file, content);
}

void TokenShard::tokenize(const std::string& path, const Tokenization& t) {
  TokenizedBatch batch(t, own_ids_, own_starts_);
  for_each_document(path, [&](std::string_view text, const std::string& name) { batch.add(text, name); });
  batch.flush();
  own_starts_.push_back(static_cast<int64_t>(own_ids_.size()));
  ids_ = own_ids_;
  starts_ = own_starts_;
}

// False when there is no such file, or not one that this program finished.
bool TokenShard::map(const std::string& file) {
  if (std::error_code ec; !fs::is_regular_file(file, ec)) return false;
  io::MappedFile mapped(file);
  const auto bytes = mapped.bytes();
  Header h;
  if (bytes.size() < sizeof h) return false;
  std::memcpy(&h, bytes.data(), sizeof h);
  const uint64_t rest = bytes.size() - sizeof h;
  if (std::memcmp(h.magic, kMagic, sizeof h.magic) != 0 || h.ids < 0 || h.documents < 0 ||
      static_cast<uint64_t>(h.documents) >= rest / 8 ||
      static_cast<uint64_t>(h.ids) != (rest - 8 * (static_cast<uint64_t>(h.documents) + 1)) / 4)
    return false;
  const auto* starts = reinterpret_cast<const int64_t*>(bytes.data() + sizeof h);
  starts_ = {starts, static_cast<size_t>(h.documents) + 1};
  ids_ = {reinterpret_cast<const int32_t*>(starts + starts_.size()), static_cast<size_t>(h.ids)};
  if (starts_.front() != 0 || starts_.back() != h.ids || !std::is_sorted(starts_.begin(), starts_.end())) return false;
  file_.emplace(std::move(mapped));
  return true;
}

}  // namespace birkhoff::data
