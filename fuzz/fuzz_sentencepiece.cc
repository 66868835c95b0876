// tokenizer.model: the protocol buffer is mutated; what passes the check goes through the library.
#include <cstring>

#include "fuzz/mutate.h"
#include "text/tokenizer/sentencepiece_tokenizer.h"

namespace {

std::string varint(uint64_t v) {
  std::string s;
  for (; v >= 0x80; v >>= 7) s.push_back(static_cast<char>(v | 0x80));
  s.push_back(static_cast<char>(v));
  return s;
}
std::string bytes_field(uint64_t number, const std::string& value) {
  return varint(number << 3 | 2) + varint(value.size()) + value;
}
std::string number_field(uint64_t number, uint64_t value) { return varint(number << 3) + varint(value); }

std::string piece(const std::string& text, float score, uint64_t type) {
  std::string bits(4, '\0');
  std::memcpy(bits.data(), &score, 4);
  return bytes_field(1, bytes_field(1, text) + varint(2 << 3 | 5) + bits + (type == 1 ? "" : number_field(3, type)));
}

// map: a character map of 256 units that leads nowhere, or none.
std::string model(bool fallback, bool map) {
  std::string s = piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3);
  for (int b = 0; fallback && b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", b);
    s += piece(name, 0, 6);
  }
  const char* const kPieces[] = {"▁", "a", "b", "▁a", "ab", "▁ab", "日"};
  float score = -1;
  for (const char* p : kPieces) s += piece(p, score -= 1, 1);
  s += piece("[U]", 0, 4) + piece("old", -20, 5);
  s += bytes_field(2, number_field(3, 2) + number_field(4, 12) + number_field(35, fallback));
  std::string trie(1024, '\0'), size("\0\4\0\0", 4);
  return s +
         bytes_field(3, bytes_field(1, "identity") + (map ? bytes_field(2, size + trie + std::string("x\0", 2)) : "") +
                            number_field(3, 1) + number_field(4, 0) + number_field(5, 1));
}

}  // namespace

int main(int argc, char** argv) {
  using namespace birkhoff;
  fuzz::Target t;
  t.name = "sentencepiece";
  t.seeds = {model(true, false), model(false, false), model(false, true)};
  t.dictionary = {piece("c", -1, 1),
                  piece("a", -1, 1),
                  piece("<unk>", 0, 2),
                  number_field(3, 1),
                  number_field(3, 2),
                  number_field(35, 1),
                  std::string("\xFF\xFF\xFF\xFF\x0F", 5),
                  std::string(10, '\xFF'),
                  bytes_field(4, "")};
  const std::string text = "ab  aab 日本 [U]\n\tolde b";
  t.run = [&](const std::string& input) {
    const auto tokenizer = text::parse_sentencepiece_model(input, {});
    std::vector<int32_t> ids = tokenizer->encode_with_special(text);
    ids.insert(ids.end(), {0, 2, 5, -1, 1 << 30});
    tokenizer->decode(ids);
    text::StreamDecoder stream(tokenizer, true);
    for (const int32_t id : ids) stream.push(id);
    stream.finish();
  };
  return fuzz::run(argc, argv, t);
}
