#include "io/gguf.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "core/error.h"
#include "io/user_files.h"

namespace birkhoff::io {
namespace {

using Type = GgufValueType;

template <class T>
T load(const std::byte* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <class T>
std::optional<uint64_t> unless_negative(T v) {
  return v < 0 ? std::nullopt : std::optional<uint64_t>(static_cast<uint64_t>(v));
}

std::optional<uint64_t> natural_at(Type t, const std::byte* p) {
  switch (t) {
    case Type::u8:
      return load<uint8_t>(p);
    case Type::i8:
      return unless_negative(load<int8_t>(p));
    case Type::u16:
      return load<uint16_t>(p);
    case Type::i16:
      return unless_negative(load<int16_t>(p));
    case Type::u32:
      return load<uint32_t>(p);
    case Type::i32:
      return unless_negative(load<int32_t>(p));
    case Type::u64:
      return load<uint64_t>(p);
    case Type::i64:
      return unless_negative(load<int64_t>(p));
    default:
      return std::nullopt;
  }
}

std::optional<double> number_at(Type t, const std::byte* p) {
  switch (t) {
    case Type::f32:
      return load<float>(p);
    case Type::f64:
      return load<double>(p);
    case Type::i8:
      return load<int8_t>(p);
    case Type::i16:
      return load<int16_t>(p);
    case Type::i32:
      return load<int32_t>(p);
    case Type::i64:
      return static_cast<double>(load<int64_t>(p));
    default:
      break;
  }
  const std::optional<uint64_t> n = natural_at(t, p);
  return n ? std::optional<double>(static_cast<double>(*n)) : std::nullopt;
}

// What somebody wrote as 1e-5 is stored as the nearest float: the shortest decimal that means it is what was written.
double decimal(float v) {
  char text[32];
  const auto [end, error] = std::to_chars(text, text + sizeof text, v);
  double d = v;
  if (error == std::errc() && std::isfinite(v)) std::from_chars(text, end, d);
  return d;
}

size_t element_bytes(Type t) {
  return t == Type::u64 || t == Type::i64 || t == Type::f64     ? 8
         : t == Type::u8 || t == Type::i8 || t == Type::boolean ? 1
         : t == Type::u16 || t == Type::i16                     ? 2
                                                                : 4;
}

}  // namespace

GgufFile::GgufFile(const std::string& path)
    : path_(path), file_(path), header_(parse_gguf_header(path, std::as_bytes(file_.bytes()))) {}

void GgufFile::fail(const std::string& what, const std::string& hint) const {
  throw Error("gguf", path_ + ": " + what, hint);
}

void GgufFile::wrong_type(const GgufValue& v, const char* expected) const {
  std::string type = gguf_value_type_name(v.type);
  if (v.type == Type::array) type += std::string(" of ") + gguf_value_type_name(v.element);
  const bool scalar = v.type != Type::array && v.type != Type::string && v.type != Type::boolean;
  std::string said = "of type " + type;
  if (scalar) {
    const auto natural = natural_at(v.type, v.bytes.data());
    said =
        (natural ? std::to_string(*natural) : std::to_string(*number_at(v.type, v.bytes.data()))) + " (" + type + ")";
  }
  fail(std::string(v.key) + " is " + said + ", " + expected + " was expected");
}

const GgufTensor* GgufFile::find(std::string_view name) const {
  const auto& order = header_.by_name;
  const auto it = std::lower_bound(order.begin(), order.end(), name,
                                   [&](uint32_t i, std::string_view n) { return header_.tensors[i].name < n; });
  return it == order.end() || header_.tensors[*it].name != name ? nullptr : &header_.tensors[*it];
}

const GgufValue* GgufFile::value(std::string_view key) const {
  const auto it = std::lower_bound(header_.values.begin(), header_.values.end(), key,
                                   [](const GgufValue& v, std::string_view k) { return v.key < k; });
  return it == header_.values.end() || it->key != key ? nullptr : &*it;
}

std::optional<uint64_t> GgufFile::natural(std::string_view key) const {
  const GgufValue* v = value(key);
  if (!v) return std::nullopt;
  const auto n = natural_at(v->type, v->bytes.data());
  if (!n) wrong_type(*v, "a natural number");
  return n;
}

std::optional<double> GgufFile::number(std::string_view key) const {
  const GgufValue* v = value(key);
  if (!v) return std::nullopt;
  if (v->type == Type::f32) return decimal(load<float>(v->bytes.data()));
  const auto n = number_at(v->type, v->bytes.data());
  if (!n) wrong_type(*v, "a number");
  return n;
}

std::optional<bool> GgufFile::boolean(std::string_view key) const {
  const GgufValue* v = value(key);
  if (!v) return std::nullopt;
  if (v->type != Type::boolean) wrong_type(*v, "a bool");
  return v->bytes[0] != std::byte{0};
}

std::optional<std::string_view> GgufFile::text(std::string_view key) const {
  const GgufValue* v = value(key);
  if (!v) return std::nullopt;
  if (v->type != Type::string) wrong_type(*v, "a string");
  return std::string_view(reinterpret_cast<const char*>(v->bytes.data()), v->bytes.size());
}

std::optional<std::vector<uint64_t>> GgufFile::naturals(std::string_view key) const {
  const GgufValue* v = value(key);
  if (!v) return std::nullopt;
  if (v->type != Type::array) return std::vector<uint64_t>{*natural(key)};
  std::vector<uint64_t> out;
  for (uint64_t i = 0; i < v->count; ++i) {
    const auto n = natural_at(v->element, v->bytes.data() + i * element_bytes(v->element));
    if (!n) wrong_type(*v, "an array of natural numbers");
    out.push_back(*n);
  }
  return out;
}

std::optional<std::vector<double>> GgufFile::numbers(std::string_view key) const {
  const GgufValue* v = value(key);
  if (!v) return std::nullopt;
  if (v->type != Type::array) wrong_type(*v, "an array of numbers");
  std::vector<double> out;
  for (uint64_t i = 0; i < v->count; ++i) {
    const auto n = number_at(v->element, v->bytes.data() + i * element_bytes(v->element));
    if (!n) wrong_type(*v, "an array of numbers");
    out.push_back(v->element == Type::f32 ? decimal(static_cast<float>(*n)) : *n);
  }
  return out;
}

std::optional<std::vector<std::string_view>> GgufFile::texts(std::string_view key) const {
  const GgufValue* v = value(key);
  if (!v) return std::nullopt;
  if (v->type != Type::array || v->element != Type::string) wrong_type(*v, "an array of strings");
  std::vector<std::string_view> out;
  out.reserve(v->count);  // every one takes eight bytes of the file
  const std::byte* p = v->bytes.data();
  for (uint64_t i = 0; i < v->count; ++i) {
    const auto bytes = load<uint64_t>(p);
    out.emplace_back(reinterpret_cast<const char*>(p + 8), bytes);
    p += 8 + bytes;
  }
  return out;
}

namespace {

constexpr uint64_t kMaxShards = 10'000;

// "-00001-of-00005.gguf"
std::string shard_ending(uint64_t number, uint64_t count) {
  char text[64];
  std::snprintf(text, sizeof text, "-%05u-of-%05u.gguf", static_cast<unsigned>(number), static_cast<unsigned>(count));
  return text;
}

}  // namespace

GgufModel::GgufModel(const std::string& path) {
  files_.push_back(std::make_unique<GgufFile>(path));
  const GgufFile& first = metadata();
  const uint64_t count = first.natural("split.count").value_or(1);
  if (count > kMaxShards) first.fail("split.count is " + std::to_string(count) + ", at most 10000 are read");
  if (count > 1) open_shards(count);
  for (const auto& f : files_) {
    bytes_ += f->bytes();
    for (const GgufTensor& t : f->tensors()) tensors_.push_back(&t);
  }
  if (const auto total = first.natural("split.tensors.count"); count > 1 && total && *total != tensors_.size())
    first.fail("split.tensors.count is " + std::to_string(*total) + ", the shards hold " +
               std::to_string(tensors_.size()));
  std::sort(tensors_.begin(), tensors_.end(),
            [](const GgufTensor* a, const GgufTensor* b) { return a->name < b->name; });
  for (size_t i = 1; i < tensors_.size(); ++i)
    if (tensors_[i - 1]->name == tensors_[i]->name)
      first.fail("the tensor \"" + std::string(tensors_[i]->name) + "\" stands in two shards");
}

void GgufModel::open_shards(uint64_t count) {
  const GgufFile& first = metadata();
  const std::string path = first.path(), ending = shard_ending(1, count);
  if (const uint64_t number = first.natural("split.no").value_or(0); number != 0)
    first.fail("is shard " + std::to_string(number + 1) + " of " + std::to_string(count),
               "give the first one, which ends with " + ending);
  if (!path.ends_with(ending))
    first.fail("is the first of " + std::to_string(count) + " shards, its name does not end with " + ending,
               "the others are found by that name: rename it");
  const std::string stem = path.substr(0, path.size() - ending.size());
  for (uint64_t i = 2; i <= count; ++i) {
    const std::string name = stem + shard_ending(i, count);
    if (!exists(name))
      first.fail("shard " + std::to_string(i) + " of " + std::to_string(count) + " is missing: " + name,
                 "put all shards into one folder");
    files_.push_back(std::make_unique<GgufFile>(name));
    const GgufFile& f = *files_.back();
    const auto number = f.natural("split.no"), shards = f.natural("split.count");
    if (!number || !shards || *number != i - 1 || *shards != count)
      f.fail("split.no and split.count say shard " + (number ? std::to_string(*number + 1) : std::string("?")) +
                 " of " + (shards ? std::to_string(*shards) : std::string("?")) + ", the name says " +
                 std::to_string(i) + " of " + std::to_string(count),
             "the shards do not belong together");
  }
}

const GgufTensor* GgufModel::find(std::string_view name) const {
  const auto it = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                   [](const GgufTensor* t, std::string_view n) { return t->name < n; });
  return it == tensors_.end() || (*it)->name != name ? nullptr : *it;
}

std::vector<std::string> GgufModel::paths() const {
  std::vector<std::string> list;
  for (const auto& f : files_) list.push_back(f->path());
  return list;
}

bool is_gguf(const std::string& path) {
  if (!is_file(path)) return false;
  if (std::filesystem::path(path).extension() == ".gguf") return true;
  struct stat about {};
  const Descriptor fd = open_file(path, about);
  char magic[4] = {};
  return ::pread(fd.get(), magic, sizeof magic, 0) == sizeof magic && std::memcmp(magic, "GGUF", sizeof magic) == 0;
}

}  // namespace birkhoff::io
