// Tokens that are cut out of a text before anything else: special tokens and those that were added behind the model's
// vocabulary.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer/tokenizer.h"
#include "text/unicode/matcher.h"

namespace birkhoff::text {

struct AddedToken {
  int32_t id = -1;
  std::string content;
  std::string
      decoded;  // what the id is decoded to: content, in its normalized form when normalized (set by AddedTokens::add)
  bool single_word = false;             // only where no word character touches it
  bool lstrip = false, rstrip = false;  // takes the white space on that side with it
  bool normalized = true;               // is looked for in the normalized text
  bool special = false;                 // is left out when decoding without special tokens
};

// Which tokens are looked for: all, or only those of a single character. Those complete the alphabet of a vocabulary
// (the 13 byte symbols of DeepSeek LLM and Coder) and can never be mistaken for a mark that structures a conversation.
enum class AddedScope { all, letters };

class AddedTokens {
 public:
  // Throws Error: empty or over-long content, two contents for one id.
  void add(AddedToken token, std::string normalized_content);
  const AddedToken* by_id(int32_t id) const;
  int32_t find(std::string_view content) const;  // -1 when absent
  bool empty() const { return by_id_.empty(); }
  int32_t end() const { return by_id_.empty() ? 0 : by_id_.rbegin()->first + 1; }
  const std::map<int32_t, AddedToken>& all() const { return by_id_; }

  struct Found {
    Span span;
    const AddedToken* token;
  };
  // Appends the tokens in text, leftmost and longest first: in raw text those with normalized false, in normalized text
  // the others. Spans include stripped white space; text between them is for the model. As in `tokenizers`, a token
  // that lies in what the one before it stripped is found all the same, so that spans can overlap, unless nothing of it
  // is left. Time is linear in text.
  void find(std::string_view text, bool normalized, AddedScope scope, std::vector<Found>& found) const;

 private:
  // A trie; children of a node are a list of siblings.
  struct Trie {
    struct Node {
      int32_t first_child = -1, sibling = -1, id = -1;
      char byte = 0;
    };
    std::vector<Node> nodes{Node{}};
    std::array<int32_t, 256> roots;  // child of the root by first byte
    int first_bytes = 0;
    char first_byte = 0;  // the only one when first_bytes is 1
    Trie() { roots.fill(-1); }
    void add(std::string_view content, int32_t id);
    int32_t child(int32_t node, char byte) const;
    // The longest token that begins at p; its length in `length`, its id returned, -1 when none.
    int32_t longest(const char* p, const char* end, size_t& length) const;
    const char* next_candidate(const char* p, const char* end) const;
  };
  Trie tries_[2][2];  // [normalized][scope]
  std::map<int32_t, AddedToken> by_id_;
  std::map<std::string, int32_t, std::less<>> by_content_;
};

// The parts joined, and the tokens of raw text that lie within one of them. Throws Error as check_text().
std::string find_in_parts(std::span<const Tokenizer::Part> parts, const AddedTokens& added,
                          std::vector<AddedTokens::Found>& found);

}  // namespace birkhoff::text
