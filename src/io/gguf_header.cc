#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/error.h"
#include "io/gguf.h"

namespace birkhoff::io {
namespace {

using Type = GgufValueType;

// The largest released model has a few thousand tensors and a hundred keys.
constexpr uint64_t kMostTensors = 65'536, kMostKeys = 65'536, kMaxKeyBytes = 65'535, kMaxNameBytes = 64;
constexpr uint64_t kLeastValueBytes = 8 + 1 + 4 + 1, kLeastTensorBytes = 8 + 4 + 8 + 4 + 8;
constexpr size_t kMaxNesting = 8;

int value_bytes(Type t) {  // 0: of no fixed size
  static constexpr int kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return kBytes[static_cast<size_t>(t)];
}

std::string quoted(std::string_view s) {
  std::string t = "\"";
  for (const char c : s.substr(0, 80)) t += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  return t + (s.size() > 80 ? "...\"" : "\"");
}

class GgufReader {
 public:
  GgufReader(const std::string& path, std::span<const std::byte> file) : path_(path), file_(file) {}

  GgufHeader read() {
    read_magic();
    const uint64_t tensors = number<uint64_t>("the number of tensors"), values = number<uint64_t>("the number of keys");
    if (tensors > kMostTensors) fail("claims " + std::to_string(tensors) + " tensors, at most 65536 are read");
    if (values > kMostKeys) fail("claims " + std::to_string(values) + " keys, at most 65536 are read");
    if (values * kLeastValueBytes + tensors * kLeastTensorBytes > left())
      truncated("claims " + std::to_string(values) + " keys and " + std::to_string(tensors) +
                " tensors, the file has " + std::to_string(file_.size()) + " bytes");
    for (uint64_t i = 0; i < values; ++i) read_value(i);
    sort_values();
    read_alignment();
    for (uint64_t i = 0; i < tensors; ++i) read_tensor(i);
    place_tensors();
    return std::move(header_);
  }

 private:
  struct Place {
    uint64_t offset = 0;
  };

  [[noreturn]] void fail(const std::string& what, const std::string& hint = "") const {
    throw Error("gguf", path_ + ": " + what, hint);
  }
  [[noreturn]] void truncated(const std::string& what) const {
    fail(what, "the file is truncated or damaged; fetch it again");
  }
  std::string here() const { return "byte " + std::to_string(at_) + ": "; }
  uint64_t left() const { return file_.size() - at_; }

  std::span<const std::byte> take(uint64_t bytes, const std::string& what) {
    if (bytes > left())
      truncated(here() + what + " takes " + std::to_string(bytes) + " bytes, the file has " + std::to_string(left()) +
                " more");
    const auto part = file_.subspan(at_, static_cast<size_t>(bytes));
    at_ += static_cast<size_t>(bytes);
    return part;
  }
  template <class T>
  T number(const std::string& what) {
    T v;
    std::memcpy(&v, take(sizeof v, what).data(), sizeof v);
    return v;
  }
  std::string_view string(const std::string& what) {
    const auto bytes = take(number<uint64_t>("the length of " + what), what);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  void read_magic() {
    constexpr std::string_view kMagic = "GGUF";
    const auto magic_bytes = file_.first(std::min<size_t>(file_.size(), 4));
    const std::string_view magic(reinterpret_cast<const char*>(magic_bytes.data()), magic_bytes.size());
    if (magic.empty()) truncated("has no bytes");
    for (const char* old : {"tjgg", "fmgg", "lmgg", "algg"})
      if (magic == old)
        fail("byte 0: " + quoted(magic) + " is a format of the time before GGUF", "convert the model again");
    if (magic != kMagic) fail("byte 0: begins with " + quoted(magic) + ", not with \"GGUF\"", "is this a GGUF file?");
    at_ = kMagic.size();
    header_.version = number<uint32_t>("the version");
    const uint32_t v = header_.version;
    if (v == 2 || v == 3) return;
    if (v != 0 && (v & 0xffff) == 0) fail("byte 4: is in big-endian byte order", "convert it to little-endian");
    fail("byte 4: version " + std::to_string(v) + ", 2 and 3 are read",
         v == 1 ? "the first version had 32-bit lengths: convert the model again" : "");
  }

  Type value_type(const std::string& of) {
    const std::string place = here();
    const auto type = number<uint32_t>("the type of " + of);
    if (type > static_cast<uint32_t>(Type::f64)) fail(place + of + " has the value type " + std::to_string(type));
    return static_cast<Type>(type);
  }

  void read_value(uint64_t i) {
    GgufValue v;
    const std::string place = here();
    v.key = string("key " + std::to_string(i));
    if (v.key.empty()) fail(place + "key " + std::to_string(i) + " is empty");
    if (v.key.size() > kMaxKeyBytes)
      fail(place + "key " + std::to_string(i) + " has " + std::to_string(v.key.size()) +
           " bytes, at most 65535 are read");
    const std::string name = quoted(v.key);
    v.type = value_type(name);
    if (v.type == Type::array) {
      v.element = value_type(name);
      v.count = number<uint64_t>("the length of " + name);
    } else if (v.type == Type::string) {
      v.count = number<uint64_t>("the length of " + name);
    }
    const size_t begin = at_;
    if (v.type == Type::array)
      skip_array(v.element, v.count, name);
    else
      take(v.type == Type::string ? v.count : static_cast<uint64_t>(value_bytes(v.type)), name);
    v.bytes = file_.subspan(begin, at_ - begin);
    header_.values.push_back(v);
  }

  // Elements of arrays within arrays are passed over without recursion.
  void skip_array(Type element, uint64_t count, const std::string& name) {
    struct Level {
      Type element;
      uint64_t left;
    };
    std::vector<Level> levels{{element, count}};
    while (!levels.empty()) {
      Level& l = levels.back();
      if (const int bytes = value_bytes(l.element)) {
        if (l.left > left() / static_cast<uint64_t>(bytes))
          truncated(here() + name + " claims " + std::to_string(l.left) + " elements of " + std::to_string(bytes) +
                    " bytes, the file has " + std::to_string(left()) + " more");
        take(l.left * static_cast<uint64_t>(bytes), name);
        l.left = 0;
      }
      if (l.left == 0) {
        levels.pop_back();
        continue;
      }
      const uint64_t least = l.element == Type::string ? 8 : 12;
      if (l.left > left() / least)
        truncated(here() + name + " claims " + std::to_string(l.left) + " elements of at least " +
                  std::to_string(least) + " bytes, the file has " + std::to_string(left()) + " more");
      if (l.element == Type::string) {
        for (; l.left > 0; --l.left) {
          uint64_t bytes = 0;
          if (left() >= 8) std::memcpy(&bytes, file_.data() + at_, 8);
          if (left() < 8 || bytes > left() - 8)
            truncated(here() + name + " has a string of " + std::to_string(bytes) + " bytes, the file has " +
                      std::to_string(left()) + " more");
          at_ += 8 + static_cast<size_t>(bytes);
        }
        continue;
      }
      --l.left;
      if (levels.size() == kMaxNesting)
        fail(here() + name + " nests arrays deeper than " + std::to_string(kMaxNesting));
      const Type inner = value_type(name);
      levels.push_back({inner, number<uint64_t>("the length of " + name)});
    }
  }

  void sort_values() {
    std::sort(header_.values.begin(), header_.values.end(),
              [](const GgufValue& a, const GgufValue& b) { return a.key < b.key; });
    for (size_t i = 1; i < header_.values.size(); ++i)
      if (header_.values[i - 1].key == header_.values[i].key)
        fail("the key " + quoted(header_.values[i].key) + " stands twice");
  }

  void read_alignment() {
    const auto it = std::find_if(header_.values.begin(), header_.values.end(),
                                 [](const GgufValue& v) { return v.key == "general.alignment"; });
    if (it == header_.values.end()) return;
    if (it->type != Type::u32) fail(std::string("general.alignment is of type ") + gguf_value_type_name(it->type));
    uint32_t v = 0;
    std::memcpy(&v, it->bytes.data(), sizeof v);
    if (v == 0 || (v & (v - 1))) fail("general.alignment is " + std::to_string(v) + ", no power of two");
    alignment_ = v;
  }

  void read_tensor(uint64_t number_in_list) {
    GgufTensor t;
    const std::string place = here(), which = "tensor " + std::to_string(number_in_list);
    t.name = string("the name of " + which);
    if (t.name.empty() || t.name.size() > kMaxNameBytes)
      fail(place + "the name of " + which + " has " + std::to_string(t.name.size()) + " bytes, 1 to 64 are read");
    const std::string name = place + quoted(t.name);
    const auto dims = number<uint32_t>("the dimensions of " + which);
    if (dims < 1 || dims > t.dims.size()) fail(name + " has " + std::to_string(dims) + " dimensions, 1 to 4 are read");
    t.dim_count = static_cast<int>(dims);
    uint64_t count = 1;
    for (uint32_t d = 0; d < dims; ++d) {
      const auto n = number<uint64_t>("dimension " + std::to_string(d) + " of " + which);
      if (n < 1 || n > INT64_MAX) fail(name + ": dimension " + std::to_string(d) + " is " + std::to_string(n));
      if (count > static_cast<uint64_t>(INT64_MAX) / n) fail(name + ": its dimensions overflow");
      count *= n;
      t.dims[d] = static_cast<int64_t>(n);
    }
    const auto type = number<uint32_t>("the type of " + which);
    t.type = find_gguf_tensor_type(type);
    if (!t.type)
      fail(name + " is of type " + std::to_string(type) + ", which is not known",
           "a type that was removed from the format, or one of another program: convert the model again");
    if (t.dims[0] % t.type->elements)
      fail(name + ": rows of " + std::to_string(t.dims[0]) + " are no whole number of blocks of " +
           std::to_string(t.type->elements) + " (" + t.type->name + ")");
    const uint64_t blocks = count / static_cast<uint64_t>(t.type->elements);
    if (blocks > static_cast<uint64_t>(INT64_MAX) / static_cast<uint64_t>(t.type->bytes))
      fail(name + ": its size overflows");
    t.bytes = static_cast<size_t>(blocks * static_cast<uint64_t>(t.type->bytes));
    places_.push_back({number<uint64_t>("the offset of " + which)});
    header_.tensors.push_back(t);
  }

  // The data begins at the next multiple of the alignment.
  void place_tensors() {
    const uint64_t padding = (alignment_ - at_ % alignment_) % alignment_;
    const uint64_t data_bytes = padding < left() ? left() - padding : 0;
    for (size_t i = 0; i < places_.size(); ++i) {
      GgufTensor& t = header_.tensors[i];
      const uint64_t offset = places_[i].offset;
      if (offset % alignment_)
        fail(quoted(t.name) + ": offset " + std::to_string(offset) + " is no multiple of the alignment " +
             std::to_string(alignment_));
      if (offset > data_bytes || t.bytes > data_bytes - offset)
        truncated(quoted(t.name) + ": " + std::to_string(t.bytes) + " bytes at offset " + std::to_string(offset) +
                  ", the file has " + std::to_string(data_bytes) + " bytes of data");
      t.data = file_.data() + at_ + padding + offset;
    }
    auto& tensors = header_.tensors;
    std::sort(tensors.begin(), tensors.end(), [](const GgufTensor& a, const GgufTensor& b) { return a.data < b.data; });
    for (size_t i = 1; i < tensors.size(); ++i)
      if (tensors[i - 1].data + tensors[i - 1].bytes > tensors[i].data)
        fail(quoted(tensors[i - 1].name) + " and " + quoted(tensors[i].name) + ": their data overlap",
             "the header was edited or damaged");
    header_.by_name.resize(tensors.size());
    std::iota(header_.by_name.begin(), header_.by_name.end(), 0u);
    std::sort(header_.by_name.begin(), header_.by_name.end(),
              [&](uint32_t a, uint32_t b) { return tensors[a].name < tensors[b].name; });
    for (size_t i = 1; i < header_.by_name.size(); ++i)
      if (tensors[header_.by_name[i - 1]].name == tensors[header_.by_name[i]].name)
        fail("the tensor " + quoted(tensors[header_.by_name[i]].name) + " stands twice");
  }

  const std::string& path_;
  const std::span<const std::byte> file_;
  size_t at_ = 0;
  uint64_t alignment_ = 32;
  std::vector<Place> places_;
  GgufHeader header_;
};

}  // namespace

GgufHeader parse_gguf_header(const std::string& path, std::span<const std::byte> file) {
  return GgufReader(path, file).read();
}

}  // namespace birkhoff::io
