#include "text/jinja/python_text.h"

#include <algorithm>

#include "text/jinja/characters.h"

namespace birkhoff::text::chat {
namespace {

bool is_line_end(char32_t c) {
  return (c >= 10 && c <= 13) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

// Start of the code point before byte i.
size_t previous(const std::string& s, size_t i) {
  do --i;
  while (i > 0 && (static_cast<unsigned char>(s[i]) & 0xc0) == 0x80);
  return i;
}

// f(out, code point, first): appends what replaces it.
template <class F>
MaskedText map_characters(const MaskedText& s, F&& f) {
  MaskedText out;
  std::string piece;
  for (size_t i = 0; i < s.size();) {
    const bool mark = s.marked_at(i);
    piece.clear();
    f(piece, utf8_next(s.bytes(), i));
    out.append(piece, mark);
  }
  return out;
}

bool is_cased(char32_t c) { return is_upper(c) || is_lower(c); }

}  // namespace

MaskedText py_strip(const MaskedText& s, const std::optional<std::string>& chars, Side side) {
  std::vector<char32_t> set;
  if (chars)
    for (size_t i = 0; i < chars->size();) set.push_back(utf8_next(*chars, i));
  const auto strips = [&](char32_t c) {
    return chars ? std::find(set.begin(), set.end(), c) != set.end() : is_space(c);
  };
  const std::string& b = s.bytes();
  size_t begin = 0, end = b.size();
  if (side != Side::right)
    while (begin < end) {
      size_t next = begin;
      if (!strips(utf8_next(b, next))) break;
      begin = next;
    }
  if (side != Side::left)
    while (end > begin) {
      const size_t last = previous(b, end);
      size_t next = last;
      if (!strips(utf8_next(b, next))) break;
      end = last;
    }
  return s.sub(begin, end);
}

std::vector<MaskedText> py_split(const MaskedText& s, const std::optional<std::string>& separator, int64_t limit) {
  std::vector<MaskedText> out;
  const std::string& b = s.bytes();
  if (separator) {
    size_t begin = 0;
    for (size_t at; limit != 0 && (at = b.find(*separator, begin)) != std::string::npos; --limit) {
      out.push_back(s.sub(begin, at));
      begin = at + separator->size();
    }
    out.push_back(s.sub(begin, b.size()));
    return out;
  }
  for (size_t i = 0; i < b.size();) {
    size_t next = i;
    if (is_space(utf8_next(b, next))) {
      i = next;
      continue;
    }
    if (limit-- == 0) {
      out.push_back(py_strip(s.sub(i, b.size()), {}, Side::right));
      break;
    }
    size_t end = i;
    for (next = i; next < b.size() && !is_space(utf8_next(b, next)); end = next) {
    }
    out.push_back(s.sub(i, end));
    i = end;
  }
  return out;
}

std::vector<MaskedText> py_rsplit(const MaskedText& s, const std::optional<std::string>& separator, int64_t limit) {
  if (limit < 0) return py_split(s, separator, limit);
  std::vector<MaskedText> out;
  const std::string& b = s.bytes();
  size_t end = b.size();
  if (separator) {
    for (; limit != 0 && end >= separator->size(); --limit) {
      const size_t at = b.rfind(*separator, end - separator->size());
      if (at == std::string::npos) break;
      out.push_back(s.sub(at + separator->size(), end));
      end = at;
    }
    out.push_back(s.sub(0, end));
  } else {
    const auto space_before = [&](size_t i) { return i > 0 && is_space(utf8_next(b, i = previous(b, i))); };
    while (true) {
      while (space_before(end)) end = previous(b, end);
      if (end == 0) break;
      if (limit-- == 0) {
        out.push_back(s.sub(0, end));
        break;
      }
      size_t begin = end;
      while (begin > 0 && !space_before(begin)) begin = previous(b, begin);
      out.push_back(s.sub(begin, end));
      end = begin;
    }
  }
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<MaskedText> py_splitlines(const MaskedText& s, bool keep_ends) {
  std::vector<MaskedText> out;
  const std::string& b = s.bytes();
  size_t begin = 0;
  for (size_t i = 0; i < b.size();) {
    const size_t at = i;
    const char32_t c = utf8_next(b, i);
    if (!is_line_end(c)) continue;
    if (c == '\r' && i < b.size() && b[i] == '\n') ++i;
    out.push_back(s.sub(begin, keep_ends ? i : at));
    begin = i;
  }
  if (begin < b.size()) out.push_back(s.sub(begin, b.size()));
  return out;
}

MaskedText py_replace(const MaskedText& s, const std::string& old, const MaskedText& with, int64_t limit) {
  MaskedText out;
  const std::string& b = s.bytes();
  size_t begin = 0;
  if (old.empty()) {
    for (; limit != 0; --limit) {
      out.append(with);
      if (begin >= b.size()) return out;
      const size_t from = begin;
      utf8_next(b, begin);
      out.append(s, from, begin);
    }
  } else {
    for (size_t at; limit != 0 && (at = b.find(old, begin)) != std::string::npos; --limit) {
      out.append(s, begin, at);
      out.append(with);
      begin = at + old.size();
    }
  }
  out.append(s, begin, b.size());
  return out;
}

MaskedText py_upper(const MaskedText& s) { return map_characters(s, append_upper); }

MaskedText py_lower(const MaskedText& s) {
  size_t at = 0;
  return map_characters(s, [&](std::string& out, char32_t c) {
    if (c == U'Σ' && is_final_sigma(s.bytes(), at))
      out += "ς";
    else
      append_lower(out, c);
    at += utf8_length(static_cast<unsigned char>(s.bytes()[at]));
  });
}

MaskedText py_capitalize(const MaskedText& s) {
  bool first = true;
  return map_characters(s, [&](std::string& out, char32_t c) {
    if (first && c == 0xdf)
      out += "Ss";
    else
      first ? append_upper(out, c) : append_lower(out, c);
    first = false;
  });
}

MaskedText py_title(const MaskedText& s) {
  bool inside = false;
  return map_characters(s, [&](std::string& out, char32_t c) {
    inside ? append_lower(out, c) : append_upper(out, c);
    inside = is_cased(c);
  });
}

MaskedText py_swapcase(const MaskedText& s) {
  return map_characters(
      s, [](std::string& out, char32_t c) { is_upper(c) ? append_lower(out, c) : append_upper(out, c); });
}

MaskedText py_pad(const MaskedText& s, int64_t width, std::string_view fill, Side text_side) {
  const int64_t missing = width - static_cast<int64_t>(utf8_count(s.bytes()));
  if (missing <= 0) return s;
  // str.center puts the odd blank as CPython does.
  const int64_t left = text_side == Side::left    ? 0
                       : text_side == Side::right ? missing
                                                  : missing / 2 + (missing & width & 1);
  MaskedText out;
  for (int64_t k = 0; k < left; ++k) out.append(fill);
  out.append(s);
  for (int64_t k = left; k < missing; ++k) out.append(fill);
  return out;
}

MaskedText py_reverse(const MaskedText& s) {
  MaskedText out;
  for (size_t end = s.size(); end > 0;) {
    const size_t begin = previous(s.bytes(), end);
    out.append(s, begin, end);
    end = begin;
  }
  return out;
}

}  // namespace birkhoff::text::chat
