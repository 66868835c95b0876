// An object of a task file, read field by field: what is missing, of another type or unknown is said with its place.
#pragma once
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/error.h"
#include "text/jinja/jinja.h"
#include "text/jinja/value.h"

namespace birkhoff::eval {

// Of one template of a task over one document: far above what prompts need, and gone in a moment where a file asks for
// more.
inline constexpr text::chat::jinja::Limits kTaskLimits = {
    .steps = 300'000, .output_bytes = 4 << 20, .live_bytes = 16 << 20, .range = 10'000, .depth = 100};

class Section {
 public:
  // where: the file and the path to the object, as messages show it. Throws Error when v is no object.
  Section(text::chat::Value v, std::string where);

  bool has(const std::string& key);
  const text::chat::Value& need(const std::string& key);
  std::string text(const std::string& key);
  std::string text(const std::string& key, const std::string& fallback);
  int64_t integer(const std::string& key, int64_t fallback);
  bool flag(const std::string& key, bool fallback);
  std::vector<std::string> texts(const std::string& key);  // a list, or one text; absent: none
  Section section(const std::string& key);
  // Compiled; absent: nothing.
  std::optional<text::chat::jinja::Template> pattern(const std::string& key);
  std::optional<text::chat::jinja::Expression> expression(const std::string& key);
  // Fields in the order of the file.
  std::vector<std::pair<std::string, text::chat::Value>> entries() const;
  // Throws Error for a field that nobody asked for, with the nearest of those that are known.
  void done() const;

  const std::string& where() const { return where_; }
  std::string place(const std::string& key) const { return where_ + ": " + key; }
  [[noreturn]] void refuse(const std::string& key, const std::string& what, const std::string& hint = "") const;

 private:
  const text::chat::Value* find(const std::string& key);
  text::chat::Value value_;
  std::string where_;
  std::set<std::string> asked_;
};

// f() with its errors said to be of that place.
template <class F>
auto at_place(const std::string& place, F&& f) {
  try {
    return f();
  } catch (const Error& e) {
    throw Error("task", place + ": " + e.said(), e.hint(), e.code());
  }
}

}  // namespace birkhoff::eval
