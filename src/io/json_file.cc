#include "io/json_file.h"

#include <algorithm>
#include <string_view>

#include "core/error.h"
#include "io/atomic_file.h"
#include "io/mapped_file.h"
#include "io/user_files.h"

namespace birkhoff::io {
namespace {

constexpr size_t kMaxTreeBytes = size_t{8} << 20, kMaxBytes = size_t{32} << 20;
constexpr int kMaxDepth = 64, kMaxValues = 200'000;

// byte: of the first character that is wrong, counted from 1.
Error not_json(const std::string& path, std::string_view text, size_t byte) {
  const size_t at = std::min(byte ? byte - 1 : 0, text.size());
  const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at), '\n');
  const size_t start = text.rfind('\n', at ? at - 1 : 0);
  const size_t column = at - (start == std::string::npos || start >= at ? 0 : start + 1) + 1;
  return Error("json", path + ":" + std::to_string(line) + ":" + std::to_string(column) + ": not JSON",
               "the file is damaged or was edited");
}
Error number_out_of_range(const std::string& path) {
  return Error("json", path + ": a number is out of range", "the file is damaged or was edited");
}

// Counts before a tree is built. (A callback of nlohmann's parser could as well, but looks through an object at every
// object that ends in it.)
class LimitCheck final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit LimitCheck(const std::string& path) : path_(path) {}
  bool null() override { return count(); }
  bool boolean(bool) override { return count(); }
  bool number_integer(number_integer_t) override { return count(); }
  bool number_unsigned(number_unsigned_t) override { return count(); }
  bool number_float(number_float_t, const string_t&) override { return count(); }
  bool string(string_t&) override { return count(); }
  bool binary(binary_t&) override { return count(); }
  bool key(string_t&) override { return count(); }
  bool start_object(std::size_t) override { return enter(); }
  bool start_array(std::size_t) override { return enter(); }
  bool end_object() override { return leave(); }
  bool end_array() override { return leave(); }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }

 private:
  bool count() {
    if (++values_ > kMaxValues)
      throw Error("json", path_ + ": more than " + std::to_string(kMaxValues) + " keys and values");
    return true;
  }
  bool enter() {
    if (depth_++ > kMaxDepth) throw Error("json", path_ + ": nested deeper than " + std::to_string(kMaxDepth));
    return count();
  }
  bool leave() {
    --depth_;
    return true;
  }
  const std::string& path_;
  int values_ = 0, depth_ = 0;
};

}  // namespace

nlohmann::json read_json(const std::string& path) {
  const std::string text = read_file(path, kMaxTreeBytes);
  LimitCheck limits(path);
  nlohmann::json::sax_parse(text, &limits);  // errors are the tree's to report
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::parse_error& e) {
    throw not_json(path, text, e.byte);
  } catch (const nlohmann::json::out_of_range&) {  // a number that no double holds
    throw number_out_of_range(path);
  }
}

bool JsonEvents::parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& e) {
  error_at_ = position;
  out_of_range_ = dynamic_cast<const nlohmann::json::out_of_range*>(&e) != nullptr;
  return false;
}

void read_json_events(const std::string& path, JsonEvents& events) {
  const MappedFile file(path);
  const size_t bytes = file.bytes().size();
  if (bytes > kMaxBytes)
    throw Error("file",
                path + ": " + std::to_string(bytes) + " bytes, at most " + std::to_string(kMaxBytes) + " are read");
  const std::string_view all(reinterpret_cast<const char*>(file.bytes().data()), bytes), text = without_mark(all);
  if (nlohmann::json::sax_parse(text.begin(), text.end(), &events)) return;
  throw events.out_of_range_ ? number_out_of_range(path) : not_json(path, text, events.error_at_);
}

void write_json(const std::string& path, const nlohmann::json& value) {
  write_file_atomic(path, value.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

}  // namespace birkhoff::io
