// Filters with patterns of Python's re, of the task dialect.
#include <map>
#include <mutex>

#include "core/error.h"
#include "text/jinja/jinja_filters.h"
#include "text/unicode/python_regex.h"

namespace birkhoff::text::chat::jinja {
namespace {

using Regex = std::shared_ptr<const PythonRegex>;

// Compiled once: a template meets thousands of documents with the same few patterns.
Regex compiled(const std::string& pattern) {
  constexpr size_t kKept = 256;
  static std::mutex mutex;
  static std::map<std::string, Regex> kept;
  const std::lock_guard lock(mutex);
  auto it = kept.find(pattern);
  if (it == kept.end()) {
    Regex regex = std::make_shared<const PythonRegex>(pattern);
    if (kept.size() >= kKept) kept.clear();
    it = kept.emplace(pattern, std::move(regex)).first;
  }
  return it->second;
}

Regex pattern_of(Interp& in, CallArgs& a, const char* filter) {
  const Value pattern = a.need(0, "pattern", filter);
  if (!pattern.is(Kind::string))
    in.fail(std::string(filter) + ": the pattern must be a str, not " + type_name(pattern));
  return compiled(pattern.bytes());
}

// A replacement of re.sub: groups \1, \g<1>, and the escapes \n, \t, \r, \\.
class Replacement {
 public:
  Replacement(Interp& in, const std::string& with) : in_(in), with_(with) {}

  void append(PythonRegex::Groups groups, std::string& out) const {
    for (size_t i = 0; i < with_.size();) {
      if (with_[i] != '\\') {
        out += with_[i++];
        continue;
      }
      static constexpr std::string_view kFrom = "\\ntr", kTo = "\\\n\t\r";
      const char c = i + 1 < with_.size() ? with_[i + 1] : '\0';
      if (const size_t known = kFrom.find(c); known != std::string_view::npos) {
        out += kTo[known];
        i += 2;
      } else {
        const size_t g = group(i);
        if (g >= groups.size())
          in_.fail("regex_replace: \\" + std::to_string(g) + " of a pattern with " + std::to_string(groups.size() - 1) +
                   " groups");
        if (groups[g]) out += *groups[g];
      }
    }
  }

 private:
  // The number of a group, whose escape begins at i; i moves behind it.
  size_t group(size_t& i) const {
    const bool named = with_.compare(i, 3, "\\g<") == 0;
    size_t n = 0, digits = 0;
    for (i += named ? 3 : 1; i < with_.size() && with_[i] >= '0' && with_[i] <= '9' && digits < 2; ++i, ++digits)
      n = n * 10 + static_cast<size_t>(with_[i] - '0');
    if (digits == 0 || (named && (i >= with_.size() || with_[i++] != '>')))
      in_.fail("regex_replace: \"" + with_ + "\": write groups as \\1 or \\g<1>");
    return n;
  }

  Interp& in_;
  const std::string& with_;
};

// regex_replace(pattern, repl, count=0): re.sub. What was content stays content, and so does what replaces it.
Value regex_replace(Interp& in, const Value& v, CallArgs& a) {
  const Regex regex = pattern_of(in, a, "regex_replace");
  const MaskedText text = in.str(v), with = in.str(a.need(1, "repl", "regex_replace"));
  const int64_t most = int_argument(in, a, 2, "count", 0);
  in.charge_search(8 * text.size(), 64);
  const Replacement replacement(in, with.bytes());
  const char *kept = text.bytes().data(), *end = kept + text.size();
  std::string out;
  int64_t done = 0;
  regex->find_all(text.bytes(), [&](PythonRegex::Groups groups) {
    out.append(kept, groups[0]->data());
    kept = groups[0]->data() + groups[0]->size();
    replacement.append(groups, out);
    in.check_size(out.size());
    in.charge(1);
    return ++done != most;
  });
  out.append(kept, end);
  return in.string(MaskedText(std::move(out), text.marked() || with.marked()));
}

// regex_search(pattern): the first match and its groups as a list, none for a group that took no part; none without a
// match.
Value regex_search(Interp& in, const Value& v, CallArgs& a) {
  const Regex regex = pattern_of(in, a, "regex_search");
  const MaskedText text = in.str(v);
  in.charge_search(8 * text.size(), 64);
  Value found = Value::none();
  regex->find_all(text.bytes(), [&](PythonRegex::Groups groups) {
    std::vector<Value> list;
    for (const auto& g : groups) {
      const size_t at = g ? static_cast<size_t>(g->data() - text.bytes().data()) : 0;
      list.push_back(g ? in.string(text.sub(at, at + g->size())) : Value::none());
    }
    found = in.list(std::move(list));
    return false;
  });
  return found;
}

}  // namespace

const BuiltinTable& regex_filters() {
  static const BuiltinTable table = {{"regex_replace", {regex_replace, 3}}, {"regex_search", {regex_search, 1}}};
  return table;
}

}  // namespace birkhoff::text::chat::jinja
