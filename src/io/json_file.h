// JSON files with errors that say where.
#pragma once
#include <nlohmann/json.hpp>
#include <string>

namespace birkhoff::io {

// Throws Error: missing, unreadable, larger than 8 MiB, more than 200,000 keys and values, nested deeper than 64, or
// not JSON (with line and column). The limits keep what a strange file can claim below 64 MiB: a value may take forty
// times the room of its text.
nlohmann::json read_json(const std::string& path);

// What a file that is not held as a tree is read with: an object's events (nlohmann's interface) until one of them
// throws.
class JsonEvents : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& e) final;

 private:
  friend void read_json_events(const std::string& path, JsonEvents& events);
  std::size_t error_at_ = 0;
  bool out_of_range_ = false;
};
// Throws Error as read_json; the file may have up to 32 MiB, which are mapped.
void read_json_events(const std::string& path, JsonEvents& events);

// Whole file, indented, synced. Throws Error.
void write_json(const std::string& path, const nlohmann::json& value);

}  // namespace birkhoff::io
