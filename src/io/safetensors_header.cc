#include "io/safetensors_header.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <tuple>
#include <utility>

#include "core/error.h"

namespace birkhoff::io {
namespace {

// What a header may claim is bounded so that reading any takes less than 64 MiB. The largest released model has 150,000
// tensors in all its files together, whose header would take 20 MB.
constexpr uint64_t kMaxHeaderBytes = uint64_t{24} << 20;
constexpr size_t kMaxTensors = 200'000, kMaxMetadata = 10'000, kMaxDims = 16;
constexpr const char* kMetadata = "__metadata__";

// Events of the parser -> entries. The only places with values: __metadata__ {string: string}, and per tensor dtype
// (string), shape and data_offsets (natural numbers). Other keys of a tensor are passed over, whatever they hold.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(const std::string& path, uint64_t data_bytes, const std::byte* data)
      : path_(path), data_bytes_(data_bytes), data_(data) {}

  bool null() override { return other(); }
  bool boolean(bool) override { return other(); }
  bool number_integer(number_integer_t) override { return number(false, 0); }
  bool number_unsigned(number_unsigned_t v) override { return number(true, v); }
  bool number_float(number_float_t, const string_t&) override { return number(false, 0); }
  bool binary(binary_t&) override { return other(); }
  bool string(string_t& v) override {
    if (skipped_) return true;
    if (depth_ == 2 && in_metadata_) {
      header_.metadata[key_] = v;
      if (header_.metadata.size() > kMaxMetadata)
        safetensors_error(path_, std::string(kMetadata) + ": more than " + std::to_string(kMaxMetadata) + " entries");
    } else if (depth_ == 2 && key_ == "dtype") {
      dtype_ = v;
      has_dtype_ = true;
    } else {
      return other();
    }
    return true;
  }
  bool start_object(std::size_t) override {
    if (passed_over()) return ++skipped_, true;
    if (depth_ >= 2) return other();
    if (++depth_ == 2) begin_tensor();
    return true;
  }
  bool end_object() override {
    if (skipped_) return --skipped_, true;
    if (depth_-- == 2) end_tensor();
    return true;
  }
  bool start_array(std::size_t) override {
    if (passed_over()) return ++skipped_, true;
    if (depth_ == 2 && (key_ == "shape" || key_ == "data_offsets")) return ++depth_, true;
    return other();
  }
  bool end_array() override {
    if (skipped_)
      --skipped_;
    else
      --depth_;
    return true;
  }
  bool key(string_t& v) override {
    if (skipped_) return true;
    key_ = v;
    if (depth_ == 2 && !in_metadata_ && !keys_.insert(v).second)
      safetensors_error(path_, entry_.name + ": " + v + " stands twice");
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }

  SafetensorsHeader take() { return std::move(header_); }

 private:
  // Inside, or at the start of, a value that means nothing here: of no use, no harm.
  bool passed_over() const {
    return skipped_ ||
           (depth_ == 2 && (in_metadata_ || (key_ != "dtype" && key_ != "shape" && key_ != "data_offsets")));
  }

  // Any other value where none belongs.
  bool other() {
    if (passed_over()) return true;
    if (depth_ == 0) safetensors_error(path_, "header is not a JSON object");
    if (depth_ == 1) safetensors_error(path_, key_ + (key_ == kMetadata ? ": is not an object" : ": no dtype"));
    safetensors_error(path_, entry_.name + ": no " + key_);
  }

  bool number(bool natural, uint64_t v) {
    if (skipped_ || depth_ != 3) return other();
    if (key_ == "shape") {
      if (!natural || v > INT64_MAX)
        safetensors_error(path_, entry_.name + ": shape has a dimension that is no natural number");
      if (entry_.shape.size() == kMaxDims)
        safetensors_error(path_, entry_.name + ": shape has more than " + std::to_string(kMaxDims) + " dimensions");
      entry_.shape.push_back(static_cast<int64_t>(v));
    } else {
      if (!natural || offsets_.size() == 2) safetensors_error(path_, entry_.name + ": no data_offsets");
      offsets_.push_back(v);
    }
    return true;
  }

  void begin_tensor() {
    in_metadata_ = key_ == kMetadata;
    if (in_metadata_ && std::exchange(has_metadata_, true))
      safetensors_error(path_, key_ + ": stands twice in the header");
    entry_ = TensorEntry{};
    entry_.name = key_;
    has_dtype_ = false;
    keys_.clear();
    offsets_.clear();
  }

  void end_tensor() {
    if (in_metadata_) {
      in_metadata_ = false;
      return;
    }
    const std::string& name = entry_.name;
    if (!has_dtype_) safetensors_error(path_, name + ": no dtype");
    if (!find_tensor_type(dtype_, entry_.type))
      safetensors_error(path_, name + ": unknown dtype " + dtype_.substr(0, 40));
    if (!keys_.count("shape")) safetensors_error(path_, name + ": no shape");
    if (offsets_.size() != 2) safetensors_error(path_, name + ": no data_offsets");
    uint64_t count = 1;
    for (const int64_t d : entry_.shape) {
      const auto n = static_cast<uint64_t>(d);
      if (n != 0 && count > INT64_MAX / 16 / n) safetensors_error(path_, name + ": shape overflows");
      count *= n;
    }
    const uint64_t begin = offsets_[0], end = offsets_[1];
    if (begin > end || end > data_bytes_) {
      safetensors_error(path_,
                        name + ": data ends at " + std::to_string(end) + ", file has " + std::to_string(data_bytes_) +
                            " bytes of data",
                        "the file is truncated");
    }
    if (end - begin != count * static_cast<uint64_t>(tensor_type_bytes(entry_.type)))
      safetensors_error(path_, name + ": " + std::to_string(end - begin) + " bytes for " + std::to_string(count) +
                                   " elements of " + dtype_);
    entry_.data = data_ + begin;
    entry_.bytes = static_cast<size_t>(end - begin);
    entry_.shape.shrink_to_fit();
    header_.tensors.push_back(std::move(entry_));
    if (header_.tensors.size() > kMaxTensors)
      safetensors_error(path_, "more than " + std::to_string(kMaxTensors) + " tensors");
  }

  const std::string& path_;
  const uint64_t data_bytes_;
  const std::byte* const data_;
  SafetensorsHeader header_;
  int depth_ = 0;        // of the values that matter: 1 header, 2 tensor or metadata, 3 list of numbers
  int64_t skipped_ = 0;  // nesting inside a value that is passed over
  bool in_metadata_ = false, has_metadata_ = false, has_dtype_ = false;
  std::string key_, dtype_;
  std::set<std::string> keys_;  // of the tensor
  TensorEntry entry_;
  std::vector<uint64_t> offsets_;
};

std::vector<uint32_t> sorted_names(const std::string& path, const std::vector<TensorEntry>& tensors) {
  std::vector<uint32_t> order(tensors.size());
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return tensors[a].name < tensors[b].name; });
  for (size_t i = 1; i < order.size(); ++i)
    if (tensors[order[i - 1]].name == tensors[order[i]].name)
      safetensors_error(path, tensors[order[i]].name + ": stands twice in the header");
  return order;
}

void check_overlaps(const std::string& path, const std::vector<TensorEntry>& sorted) {
  for (size_t i = 1; i < sorted.size(); ++i) {
    const TensorEntry &a = sorted[i - 1], &b = sorted[i];
    if (a.data + a.bytes > b.data)
      safetensors_error(path, a.name + " and " + b.name + ": their data overlap", "the header was edited or damaged");
  }
}

}  // namespace

SafetensorsHeader parse_safetensors_header(const std::string& path, std::span<const std::byte> file) {
  if (file.size() < 8)
    safetensors_error(path, "has " + std::to_string(file.size()) + " bytes, too few for a header",
                      "the file is truncated; fetch or write it again");
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), 8);
  if (header_bytes > file.size() - 8) {
    safetensors_error(
        path, "header claims " + std::to_string(header_bytes) + " bytes, file has " + std::to_string(file.size()),
        "the file is truncated or not safetensors");
  }
  if (header_bytes > kMaxHeaderBytes)
    safetensors_error(path, "header claims " + std::to_string(header_bytes) + " bytes, at most " +
                                std::to_string(kMaxHeaderBytes) + " are read");
  const char* text = reinterpret_cast<const char*>(file.data()) + 8;
  HeaderReader reader(path, file.size() - 8 - header_bytes, file.data() + 8 + header_bytes);
  if (!nlohmann::json::sax_parse(text, text + header_bytes, &reader))
    safetensors_error(path, "header is not a JSON object");
  SafetensorsHeader h = reader.take();
  std::sort(h.tensors.begin(), h.tensors.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::tie(a.data, a.bytes) < std::tie(b.data, b.bytes);
  });
  h.by_name = sorted_names(path, h.tensors);
  check_overlaps(path, h.tensors);
  return h;
}

}  // namespace birkhoff::io
