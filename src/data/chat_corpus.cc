#include "data/chat_corpus.h"

#include <algorithm>
#include <numeric>

#include "core/rng.h"
#include "data/data_error.h"
#include "data/documents.h"
#include "text/chat/marked_encode.h"
#include "text/chat/training_sample.h"
#include "text/jinja/json_value.h"

namespace birkhoff::data {
namespace {

using text::chat::Kind;
using text::chat::Value;

constexpr size_t kOpenRows = 64;  // rows that a sample is tried in before a new one is begun

uint64_t shuffled(uint64_t seed, uint64_t i) { return mix64(mix64(seed) + i); }

}  // namespace

bool ChatCorpus::is_chat_file(const std::string& path) {
  if (!path.ends_with(".jsonl")) return false;
  bool found = false;
  for_each_line(path, [&](std::string_view line, size_t) {
    try {
      found = !get(text::chat::parse_json(line), "messages").is(Kind::undefined);
    } catch (const Error&) {
      found = false;
    }
    return false;  // the first line tells
  });
  return found;
}

bool are_conversations(const std::vector<std::string>& arguments) {
  std::string chat, other, weighted;
  for (const std::string& argument : arguments) {
    const std::string path = split_weight(argument).first;
    for (const std::string& file : document_files(path)) {
      const bool is_chat = ChatCorpus::is_chat_file(file);
      (is_chat ? chat : other) = file;
      if (is_chat && path != argument) weighted = argument;
    }
  }
  if (chat.empty()) return false;
  if (!other.empty())
    data_error("conversations and documents in one run: " + chat + " and " + other,
               "fine-tune on conversations in a run of their own, with --init");
  if (!weighted.empty())
    data_error(weighted + ": conversations take no weight, every epoch reads all of them",
               "leave the weight out; give a file twice to read it twice as often");
  return true;
}

ChatCorpus::ChatCorpus(const std::vector<std::string>& training, const std::vector<std::string>& validation,
                       std::shared_ptr<const text::Tokenizer> tokenizer, const text::chat::ChatFormat& format,
                       int64_t seq_len, uint64_t seed)
    : tokenizer_(std::move(tokenizer)), seq_len_(seq_len), seed_(seed) {
  for (const std::string& path : validation)
    for (const std::string& file : document_files(path))
      for (auto& conversation : read_file(file, format, held_back_))
        add(validation_, std::move(conversation), held_back_);
  for (const std::string& path : training)
    for (const std::string& file : document_files(path)) {
      auto conversations = read_file(file, format, counts_);
      size_t keep = conversations.size();
      if (validation.empty() && keep > 1) keep -= std::max<size_t>(1, keep / 20);
      for (size_t i = 0; i < conversations.size(); ++i)
        i < keep ? add(training_, std::move(conversations[i]), counts_)
                 : add(validation_, std::move(conversations[i]), held_back_);
    }
  const std::string& refusal = counts_.first_refusal.empty() ? held_back_.first_refusal : counts_.first_refusal;
  for (const Part* part : {&training_, &validation_})
    if (part->samples.empty() && (part == &validation_ || !training.empty()))
      data_error(std::string("no conversation ") + (part == &training_ ? "to train on" : "to validate") +
                     " has a turn of the assistant that fits into seq_len " + std::to_string(seq_len) +
                     (refusal.empty() ? "" : "; first refusal: " + refusal),
                 "give more conversations or a larger seq_len");
  pack(training_, counts_);
  pack(validation_, held_back_);
}

// One entry a conversation: its samples.
std::vector<std::vector<ChatCorpus::Sample>> ChatCorpus::read_file(const std::string& path,
                                                                   const text::chat::ChatFormat& format,
                                                                   ChatCounts& counts) const {
  std::vector<std::vector<Sample>> out;
  for_each_line(path, [&](std::string_view line, size_t number) {
    const std::string where = path + ":" + std::to_string(number);
    Value input;
    try {
      input = text::chat::parse_json(line);
    } catch (const Error& e) {
      data_error(where + ": " + e.what());
    }
    const Value messages = get(input, "messages");
    if (!messages.is_sequence())
      data_error(
          where + ": no list \"messages\"" + (get(input, "text").is(Kind::undefined) ? "" : " but \"text\""),
          "in a file of conversations every line is {\"messages\": [{\"role\", \"content\"}, ...], \"tools\": [...]}");
    ++counts.conversations;
    text::chat::SampleNotes notes;
    std::vector<Sample> samples;
    try {
      for (const text::chat::TrainingSample& stretches :
           text::chat::training_samples(format, messages, get(input, "tools"), get(input, "options"), notes)) {
        Sample& s = samples.emplace_back();
        for (const text::chat::Stretch& stretch : stretches) {
          const auto ids = text::chat::encode_marked(*tokenizer_, stretch.text);
          s.ids.insert(s.ids.end(), ids.begin(), ids.end());
          s.learn.resize(s.ids.size(), stretch.learn);
        }
      }
    } catch (const Error& e) {
      ++counts.refused;
      if (counts.first_refusal.empty()) counts.first_refusal = where + ": " + e.what();
      return true;
    }
    if (samples.empty()) ++counts.dropped;  // no turn of the assistant
    counts.turns += notes.turns;
    counts.rewritten += notes.rewritten;
    counts.without_end += notes.without_end;
    out.push_back(std::move(samples));
    return true;
  });
  return out;
}

// Cuts samples to a row (its last token still has a label) and drops those that teach nothing.
void ChatCorpus::add(Part& part, std::vector<Sample> conversation, ChatCounts& counts) const {
  for (Sample& s : conversation) {
    const auto longest = static_cast<size_t>(seq_len_) + 1;
    if (s.ids.size() > longest) {
      ++counts.cut;
      counts.cut_tokens += static_cast<int64_t>(s.ids.size() - longest);
      s.ids.resize(longest);
      s.learn.resize(longest);
    }
    // The first token has nothing before it to be predicted from.
    const auto learnt = s.learn.size() < 2 ? 0 : std::count(s.learn.begin() + 1, s.learn.end(), 1);
    if (learnt == 0) {
      ++counts.dropped;
      continue;
    }
    ++counts.samples;
    counts.tokens += static_cast<int64_t>(s.ids.size());
    counts.learnt_tokens += learnt;
    part.samples.push_back(std::move(s));
  }
}

void ChatCorpus::pack(Part& part, ChatCounts& counts) const {
  std::vector<size_t> order(part.samples.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [this](size_t a, size_t b) { return shuffled(seed_, a) < shuffled(seed_, b); });
  std::vector<int64_t> room;
  size_t first_open = 0;
  for (const size_t i : order) {
    const int64_t need = std::min<int64_t>(static_cast<int64_t>(part.samples[i].ids.size()), seq_len_);
    size_t row = first_open;
    while (row < part.rows.size() && room[row] < need) ++row;
    if (row == part.rows.size()) {
      part.rows.emplace_back();
      room.push_back(seq_len_);
    }
    part.rows[row].push_back(i);
    room[row] -= need;
    if (part.rows.size() - first_open > kOpenRows) ++first_open;
  }
  counts.rows = static_cast<int64_t>(part.rows.size());
}

void ChatCorpus::append_row(const Part& part, size_t row, Batch& b) const {
  const auto row_start = static_cast<int32_t>(b.ids.size());
  b.sequence_start.push_back(row_start);
  const auto append = [&](int32_t id, int32_t label, int32_t first) {
    b.position.push_back(static_cast<int32_t>(b.ids.size()) - first);
    b.first_key.push_back(first);
    b.ids.push_back(id);
    b.labels.push_back(label);
  };
  for (const size_t index : part.rows[row]) {
    const Sample& s = part.samples[index];
    const auto first = static_cast<int32_t>(b.ids.size());
    b.segment_start.push_back(first);
    for (size_t i = 0; i < std::min(s.ids.size(), static_cast<size_t>(seq_len_)); ++i)
      append(s.ids[i], i + 1 < s.ids.size() && s.learn[i + 1] ? s.ids[i + 1] : kIgnoreLabel, first);
  }
  const int32_t end = row_start + static_cast<int32_t>(seq_len_), padding = static_cast<int32_t>(b.ids.size());
  if (padding < end) b.segment_start.push_back(padding);
  while (static_cast<int32_t>(b.ids.size()) < end) append(tokenizer_->eos().value_or(0), kIgnoreLabel, padding);
  ++b.rows;
}

Batch ChatCorpus::training_batch(int64_t step, int64_t batch_size, int64_t first_row, int64_t rows) const {
  Batch b;
  b.seq_len = seq_len_;
  const auto count = static_cast<uint64_t>(training_.rows.size());
  for (int64_t row = first_row; row < first_row + rows; ++row) {
    const auto draw = static_cast<uint64_t>(step * batch_size + row), epoch = draw / count;
    // Every epoch visits every row once, in an order of its own: an affine map of the row numbers.
    uint64_t stride = shuffled(seed_ + 1, epoch) % count | 1;
    while (std::gcd(stride, count) != 1) stride += 2;
    const uint64_t offset = shuffled(seed_ + 2, epoch) % count;
    append_row(training_, static_cast<size_t>((draw % count * (stride % count) + offset) % count), b);
  }
  return b;
}

std::vector<Batch> ChatCorpus::validation_batches(int64_t rows, int64_t limit) const {
  const auto all = static_cast<int64_t>(validation_.rows.size()), used = limit > 0 ? std::min(limit, all) : all;
  std::vector<Batch> batches;
  for (int64_t k = 0; k < used; ++k) {
    if (batches.empty() || batches.back().rows == rows) {
      batches.emplace_back();
      batches.back().seq_len = seq_len_;
    }
    append_row(validation_, static_cast<size_t>(k * all / used), batches.back());
  }
  return batches;
}

namespace {

std::string n(int64_t v) { return std::to_string(v); }

// What a part lost, a line each.
std::string describe_losses(const ChatCounts& c, const std::string& part) {
  std::string out;
  if (c.cut)
    out += "\n" + part + n(c.cut) + " samples were longer than seq_len and lost " + n(c.cut_tokens) + " tokens";
  if (c.dropped) out += "\n" + part + n(c.dropped) + " samples had nothing to learn and were dropped";
  if (c.rewritten)
    out += "\n" + part + n(c.rewritten) + " turns were left out: the format writes what went before them differently";
  if (c.without_end)
    out += "\n" + part + n(c.without_end) + " turns have no end token: the model will not learn to stop";
  if (c.refused)
    out += "\n" + part + n(c.refused) + " conversations were refused by the chat format; first: " + c.first_refusal;
  return out;
}

}  // namespace

std::string ChatCorpus::describe() const {
  const ChatCounts& c = counts_;
  std::string out = n(c.conversations) + " conversations, " + n(c.turns) + " turns of the assistant; " + n(c.tokens) +
                    " tokens to train on, " + n(c.learnt_tokens) + " of them learnt, in " + n(c.rows) + " rows of " +
                    n(seq_len_) + " (" + n(100 * c.tokens / std::max<int64_t>(1, c.rows * seq_len_)) + " % full); " +
                    n(static_cast<int64_t>(validation_.samples.size())) + " samples held back";
  return out + describe_losses(c, "") + describe_losses(held_back_, "held back: ");
}

}  // namespace birkhoff::data
