#include "eval/answer_store.h"

#include <fcntl.h>
#include <xxhash.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "io/manifest.h"

namespace birkhoff::eval {
namespace {

std::string hex128(std::string_view bytes) {
  const XXH128_hash_t h = XXH3_128bits(bytes.data(), bytes.size());
  char text[40];
  std::snprintf(text, sizeof text, "%016" PRIx64 "%016" PRIx64, static_cast<uint64_t>(h.high64),
                static_cast<uint64_t>(h.low64));
  return text;
}

// Lengths before contents: two requests never make one string.
void append_ids(std::string& all, std::span<const int32_t> ids) {
  all += std::to_string(ids.size()) + " ";
  all.append(reinterpret_cast<const char*>(ids.data()), ids.size_bytes());
}
void append_text(std::string& all, std::string_view text) {
  all += std::to_string(text.size()) + " ";
  all += text;
}

std::string check_of(const nlohmann::json& line) {
  char text[20];
  std::snprintf(text, sizeof text, "%08x", static_cast<unsigned>(io::checksum(line.dump())));
  return text;
}

}  // namespace

std::string request_key(std::string_view model, const Continuation& c) {
  std::string all = "continuation ";
  append_text(all, model);
  append_ids(all, c.ids);
  return hex128(all + std::to_string(c.first));
}

std::string request_key(std::string_view model, std::span<const int32_t> prompt, const std::vector<std::string>& until,
                        int64_t max_tokens) {
  std::string all = "answer ";
  append_text(all, model);
  append_ids(all, prompt);
  for (const std::string& u : until) append_text(all, u);
  return hex128(all + " " + std::to_string(max_tokens));
}

AnswerStore::AnswerStore(const std::string& path) : path_(path) {
  bool ends_in_line = true;
  if (io::exists(path)) {
    const std::string all = io::read_file(path, size_t{4} << 30);
    for (size_t at = 0; at < all.size();) {
      const size_t end = std::min(all.find('\n', at), all.size());
      if (end > at) read(std::string_view(all).substr(at, end - at));
      at = end + 1;
    }
    ends_in_line = all.empty() || all.back() == '\n';
  }
  file_ = io::Descriptor(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666));
  if (file_.get() < 0) io::file_error(path, "cannot be written", errno);
  if (!ends_in_line && !io::write_all(file_.get(), "\n")) io::file_error(path, "cannot be written", errno);
}

void AnswerStore::read(std::string_view text) {
  nlohmann::json line = nlohmann::json::parse(text, nullptr, false);
  try {
    if (!line.is_object()) throw nlohmann::json::other_error::create(0, "no object", nullptr);
    const auto check = line.at("check").get<std::string>(), key = line.at("key").get<std::string>();
    line.erase("check");
    if (check != check_of(line)) throw nlohmann::json::other_error::create(0, "another checksum", nullptr);
    if (line.contains("text"))
      texts_[key] = {line.at("text").get<std::string>(), line.at("tokens").get<int64_t>()};
    else
      scores_[key] = {line.at("logprob").get<double>(), line.at("is_greedy").get<bool>()};
  } catch (const nlohmann::json::exception&) {
    ++damaged_;
  }
}

void AnswerStore::write(std::string line) {
  line += '\n';
  if (!io::write_all(file_.get(), line)) io::file_error(path_, "cannot be written", errno);
}

const ContinuationScore* AnswerStore::score(const std::string& key) const {
  const auto at = scores_.find(key);
  return at == scores_.end() ? nullptr : &at->second;
}
const AnswerStore::Written* AnswerStore::text(const std::string& key) const {
  const auto at = texts_.find(key);
  return at == texts_.end() ? nullptr : &at->second;
}

void AnswerStore::add(const std::string& key, const ContinuationScore& s) {
  nlohmann::json line = {{"key", key}, {"logprob", s.loglikelihood}, {"is_greedy", s.greedy}};
  line["check"] = check_of(line);
  write(line.dump());
  scores_[key] = s;
}

void AnswerStore::add(const std::string& key, const Written& t) {
  nlohmann::json line = {{"key", key}, {"text", t.text}, {"tokens", t.tokens}};
  line["check"] = check_of(line);
  write(line.dump());
  texts_[key] = t;
}

}  // namespace birkhoff::eval
