#include "text/tokenizer/added_tokens.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "text/unicode/unicode.h"
#include "text/unicode/utf8.h"

namespace birkhoff::text {
namespace {
constexpr size_t kMaxContent = 4096;  // bytes; bounds the work at one place of a text

bool one_character(std::string_view s) {
  const char* p = s.data();
  next_char(p);
  return p == s.data() + s.size();
}
// Where the white space at the end of text begins.
size_t space_before(std::string_view text) {
  size_t at = text.size();
  while (at > 0) {
    const char32_t c = last_char(text.substr(0, at));
    if (!is_space(c)) break;
    at -= c < 0x80 ? 1 : c < 0x800 ? 2 : 3;
  }
  return at;
}
size_t space_at_start(std::string_view text) {
  const char *start = text.data(), *end = start + text.size(), *p = start;
  while (p < end) {
    const char* after = p;
    if (!is_space(next_char(after))) break;
    p = after;
  }
  return static_cast<size_t>(p - start);
}
bool starts_with_word(std::string_view text) {
  const char* p = text.data();
  return !text.empty() && is_word(next_char(p));
}
bool ends_with_word(std::string_view text) { return !text.empty() && is_word(last_char(text)); }
}  // namespace

void AddedTokens::Trie::add(std::string_view content, int32_t id) {
  int32_t node = 0;
  for (const char c : content) {
    int32_t next = child(node, c);
    if (next < 0) {
      next = static_cast<int32_t>(nodes.size());
      nodes.push_back({-1, nodes[static_cast<size_t>(node)].first_child, -1, c});
      nodes[static_cast<size_t>(node)].first_child = next;
      if (node == 0) {
        roots[static_cast<unsigned char>(c)] = next;
        first_byte = c;
        ++first_bytes;
      }
    }
    node = next;
  }
  if (nodes[static_cast<size_t>(node)].id < 0)
    nodes[static_cast<size_t>(node)].id = id;  // of equal patterns the first wins
}

int32_t AddedTokens::Trie::child(int32_t node, char byte) const {
  if (node == 0) return roots[static_cast<unsigned char>(byte)];
  int32_t c = nodes[static_cast<size_t>(node)].first_child;
  while (c >= 0 && nodes[static_cast<size_t>(c)].byte != byte) c = nodes[static_cast<size_t>(c)].sibling;
  return c;
}

int32_t AddedTokens::Trie::longest(const char* p, const char* end, size_t& length) const {
  int32_t node = 0, found = -1;
  for (const char* q = p; q < end; ++q) {
    node = child(node, *q);
    if (node < 0) break;
    if (nodes[static_cast<size_t>(node)].id >= 0) {
      found = nodes[static_cast<size_t>(node)].id;
      length = static_cast<size_t>(q + 1 - p);
    }
  }
  return found;
}

const char* AddedTokens::Trie::next_candidate(const char* p, const char* end) const {
  if (first_bytes == 0) return end;
  if (first_bytes == 1) {
    const void* at = std::memchr(p, first_byte, static_cast<size_t>(end - p));
    return at ? static_cast<const char*>(at) : end;
  }
  while (p < end && roots[static_cast<unsigned char>(*p)] < 0) ++p;
  return p;
}

void AddedTokens::add(AddedToken token, std::string normalized_content) {
  if (token.content.empty() || token.content.size() > kMaxContent)
    throw Error("tokenizer", "an added token has " + std::to_string(token.content.size()) + " bytes, must have 1.." +
                                 std::to_string(kMaxContent));
  const auto [at, fresh] = by_id_.emplace(token.id, token);
  if (!fresh && at->second.content != token.content)
    throw Error("tokenizer", "added tokens \"" + at->second.content + "\" and \"" + token.content + "\" both have id " +
                                 std::to_string(token.id));
  at->second = token;
  by_content_[token.content] = token.id;
  at->second.decoded = token.normalized ? normalized_content : token.content;
  const std::string& pattern = at->second.decoded;
  if (pattern.empty()) return;
  tries_[token.normalized][0].add(pattern, token.id);
  if (one_character(token.content)) tries_[token.normalized][1].add(pattern, token.id);
}

const AddedToken* AddedTokens::by_id(int32_t id) const {
  const auto at = by_id_.find(id);
  return at == by_id_.end() ? nullptr : &at->second;
}

int32_t AddedTokens::find(std::string_view content) const {
  const auto at = by_content_.find(content);
  return at == by_content_.end() ? -1 : at->second;
}

void AddedTokens::find(std::string_view text, bool normalized, AddedScope scope, std::vector<Found>& found) const {
  const Trie& trie = tries_[normalized][scope == AddedScope::letters];
  const char *start = text.data(), *end = start + text.size();
  size_t taken = 0;  // text before this belongs to a token already
  Span blank{0, 0};  // the white space that was last stripped behind a token: tokens within it look for the same end
  for (const char* p = trie.next_candidate(start, end); p < end; p = trie.next_candidate(p, end)) {
    size_t length = 0;
    const int32_t id = trie.longest(p, end, length);
    if (id < 0) {
      ++p;
      continue;
    }
    const AddedToken& t = by_id_.find(id)->second;
    size_t begin = static_cast<size_t>(p - start), stop = begin + length;
    p += length;
    if (t.single_word && (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(stop)))) continue;
    if (t.lstrip) begin = taken < begin ? taken + space_before(text.substr(taken, begin - taken)) : taken;
    if (t.rstrip && (stop < blank.begin || stop > blank.end))
      blank = {static_cast<uint32_t>(stop), static_cast<uint32_t>(stop + space_at_start(text.substr(stop)))};
    if (t.rstrip) stop = blank.end;
    if (stop <= begin) continue;  // an earlier token stripped all of it
    found.push_back({{static_cast<uint32_t>(begin), static_cast<uint32_t>(stop)}, &t});
    taken = stop;
  }
}

std::string find_in_parts(std::span<const Tokenizer::Part> parts, const AddedTokens& added,
                          std::vector<AddedTokens::Found>& found) {
  std::string text;
  for (const Tokenizer::Part& part : parts) text += part.text;
  check_text(text);
  std::vector<AddedTokens::Found> here;
  // Tokens of text[begin..end), with their place in text.
  const auto find = [&](size_t begin, size_t end, bool normalized, AddedScope scope) {
    here.clear();
    added.find(std::string_view(text).substr(begin, end - begin), normalized, scope, here);
    for (AddedTokens::Found& f : here) {
      f.span.begin += static_cast<uint32_t>(begin);
      f.span.end += static_cast<uint32_t>(begin);
    }
  };
  size_t at = 0;
  for (const Tokenizer::Part& part : parts) {
    const size_t end = at + part.text.size();
    const AddedScope scope = part.added == Tokenizer::Added::match ? AddedScope::all : AddedScope::letters;
    find(at, end, false, scope);
    std::vector<AddedTokens::Found> raw = here;
    raw.push_back({{static_cast<uint32_t>(end), static_cast<uint32_t>(end)}, nullptr});
    for (const AddedTokens::Found& f : raw) {
      // Tokens of normalized text: here, where parts are still apart, by the text as it stands.
      if (scope == AddedScope::all && f.span.begin > at) {
        find(at, f.span.begin, true, scope);
        found.insert(found.end(), here.begin(), here.end());
      }
      if (f.token) found.push_back(f);
      at = f.span.end;
    }
  }
  return text;
}

}  // namespace birkhoff::text
