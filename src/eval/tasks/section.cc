#include "eval/tasks/section.h"

#include "core/error.h"
#include "core/nearest.h"

namespace birkhoff::eval {

using text::chat::Kind;
using text::chat::Value;
namespace jinja = text::chat::jinja;

Section::Section(Value v, std::string where) : value_(std::move(v)), where_(std::move(where)) {
  if (!value_.is(Kind::dict))
    throw Error("task", where_ + ": an object was expected, not " + text::chat::type_name(value_));
}

void Section::refuse(const std::string& key, const std::string& what, const std::string& hint) const {
  throw Error("task", place(key) + ": " + what, hint.empty() ? "task files: docs/eval.md" : hint);
}

const Value* Section::find(const std::string& key) {
  asked_.insert(key);
  return value_.as_dict().find(std::string_view(key));
}

bool Section::has(const std::string& key) { return find(key) != nullptr; }

const Value& Section::need(const std::string& key) {
  const Value* v = find(key);
  if (!v) refuse(key, "is missing");
  return *v;
}

std::string Section::text(const std::string& key) {
  const Value& v = need(key);
  if (!v.is(Kind::string)) refuse(key, std::string("a text was expected, not ") + text::chat::type_name(v));
  return v.bytes();
}

std::string Section::text(const std::string& key, const std::string& fallback) {
  return has(key) ? text(key) : fallback;
}

int64_t Section::integer(const std::string& key, int64_t fallback) {
  const Value* v = find(key);
  if (!v) return fallback;
  constexpr int64_t kMost = 1'000'000'000;
  if (!v->is(Kind::integer) || v->as_int() < 0 || v->as_int() > kMost)
    refuse(key, "a number from 0 to " + std::to_string(kMost) + " was expected");
  return v->as_int();
}

bool Section::flag(const std::string& key, bool fallback) {
  const Value* v = find(key);
  if (!v) return fallback;
  if (!v->is(Kind::boolean)) refuse(key, "true or false was expected");
  return v->as_int() != 0;
}

std::vector<std::string> Section::texts(const std::string& key) {
  const Value* v = find(key);
  if (!v) return {};
  if (v->is(Kind::string)) return {v->bytes()};
  if (!v->is(Kind::list)) refuse(key, "a list of texts was expected");
  std::vector<std::string> out;
  for (const Value& item : v->items()) {
    if (!item.is(Kind::string)) refuse(key, "a list of texts was expected");
    out.push_back(item.bytes());
  }
  return out;
}

Section Section::section(const std::string& key) { return {need(key), place(key)}; }

std::optional<jinja::Template> Section::pattern(const std::string& key) {
  if (!has(key)) return std::nullopt;
  return at_place(place(key), [&] { return jinja::Template(text(key), jinja::Dialect::task); });
}

std::optional<jinja::Expression> Section::expression(const std::string& key) {
  if (!has(key)) return std::nullopt;
  return at_place(place(key), [&] { return jinja::Expression(text(key), jinja::Dialect::task); });
}

std::vector<std::pair<std::string, Value>> Section::entries() const {
  std::vector<std::pair<std::string, Value>> out;
  for (const auto& [key, value] : value_.as_dict().entries) out.emplace_back(key.bytes(), value);
  return out;
}

void Section::done() const {
  for (const auto& [key, value] : value_.as_dict().entries) {
    if (asked_.contains(key.bytes())) continue;
    const std::string near = nearest(key.bytes(), {asked_.begin(), asked_.end()});
    refuse(key.bytes(), "unknown field" + (near.empty() ? "" : "; did you mean \"" + near + "\"?"));
  }
}

}  // namespace birkhoff::eval
