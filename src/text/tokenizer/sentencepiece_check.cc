#include <cmath>
#include <cstring>
#include <string>
#include <unordered_set>

#include "core/error.h"
#include "text/tokenizer/sentencepiece_tokenizer.h"
#include "text/tokenizer/vocabulary.h"
#include "text/unicode/utf8.h"

namespace birkhoff::text {
namespace {

// Field numbers and values of sentencepiece_model.proto.
enum ModelField { kPieces = 1, kTrainerSpec = 2, kNormalizerSpec = 3, kSelfTest = 4, kDenormalizerSpec = 5 };
enum PieceField { kPiece = 1, kScore = 2, kType = 3 };
enum PieceType { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };
enum TrainerField { kModelType = 3, kByteFallback = 35 };
constexpr uint64_t kBpe = 2;
constexpr uint64_t kCharacterMap = 2;  // of NormalizerSpec
constexpr size_t kMaxPieceBytes = 4096;

[[noreturn]] void damaged(const std::string& what) {
  throw Error("tokenizer", "SentencePiece model: " + what, "the file is damaged, or not a tokenizer.model");
}

struct Field {
  uint64_t number = 0;
  enum class Kind { varint, fixed64, bytes, fixed32 } kind = Kind::varint;
  uint64_t value = 0;
  std::string_view bytes;
};

// One message of the protocol-buffer wire format.
class Message {
 public:
  explicit Message(std::string_view s) : s_(s) {}
  bool next(Field& f) {
    if (at_ == s_.size()) return false;
    const uint64_t tag = varint();
    f.number = tag >> 3;
    if (f.number == 0 || tag > UINT32_MAX) damaged("field number " + std::to_string(f.number));
    switch (tag & 7) {
      case 0:
        f.kind = Field::Kind::varint;
        f.value = varint();
        break;
      case 1:
        f.kind = Field::Kind::fixed64, take(8);
        break;
      case 2:
        f.kind = Field::Kind::bytes, f.bytes = take(varint());
        break;
      case 5: {
        f.kind = Field::Kind::fixed32;
        uint32_t v;
        std::memcpy(&v, take(4).data(), 4);
        f.value = v;
        break;
      }
      default:
        damaged("wire type " + std::to_string(tag & 7) + " at byte " + std::to_string(at_));
    }
    return true;
  }

 private:
  uint64_t varint() {
    uint64_t v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (at_ == s_.size()) damaged("is cut off in the middle of a number");
      const auto b = static_cast<unsigned char>(s_[at_++]);
      v |= static_cast<uint64_t>(b & 0x7F) << shift;
      if (b < 0x80) return v;
    }
    damaged("a number has more than ten bytes");
  }
  std::string_view take(uint64_t n) {
    if (n > s_.size() - at_)
      damaged("a field of " + std::to_string(n) + " bytes reaches beyond the " + std::to_string(s_.size()) +
              " of its message");
    at_ += n;
    return s_.substr(at_ - n, n);
  }
  std::string_view s_;
  size_t at_ = 0;
};

void expect(const Field& f, Field::Kind kind, const char* name) {
  if (f.kind != kind) damaged(std::string(name) + " has the wrong wire type");
}

struct Counts {
  size_t pieces = 0, unknown = 0, bytes = 0;
  std::unordered_set<std::string_view> seen;
};

void check_byte_piece(std::string_view piece) {
  const auto hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'); };
  if (piece.size() != 6 || piece.substr(0, 3) != "<0x" || !hex(piece[3]) || !hex(piece[4]) || piece[5] != '>')
    damaged("byte piece \"" + std::string(piece.substr(0, 20)) + "\"");
}

void check_piece(std::string_view message, Counts& counts) {
  std::string_view piece;
  uint64_t type = kNormal;
  Message m(message);
  for (Field f; m.next(f);) {
    if (f.number == kPiece) {
      expect(f, Field::Kind::bytes, "piece");
      piece = f.bytes;
    } else if (f.number == kScore) {
      expect(f, Field::Kind::fixed32, "score");
      float score;
      const auto bits = static_cast<uint32_t>(f.value);
      std::memcpy(&score, &bits, 4);
      if (!std::isfinite(score)) damaged("the score of piece " + std::to_string(counts.pieces) + " is not finite");
    } else if (f.number == kType) {
      expect(f, Field::Kind::varint, "type");
      type = f.value;
      if (type < kNormal || type > kByte)
        damaged("piece " + std::to_string(counts.pieces) + " has type " + std::to_string(type) + ", known are 1..6");
    }
  }
  const std::string name = "piece " + std::to_string(counts.pieces);
  if (piece.empty() || piece.size() > kMaxPieceBytes)
    damaged(name + " has " + std::to_string(piece.size()) + " bytes, must have 1.." + std::to_string(kMaxPieceBytes));
  if (first_invalid(piece) != piece.size() || piece.find('\0') != std::string_view::npos)
    damaged(name + " is not text");
  if (!counts.seen.insert(piece).second) damaged(name + " \"" + std::string(piece.substr(0, 40)) + "\" is there twice");
  if (type == kByte) check_byte_piece(piece);
  ++counts.pieces;
  counts.unknown += type == kUnknown;
  counts.bytes += type == kByte;
}

// precompiled_charsmap: the size of a double-array trie, its 32-bit units, then strings ended by zeros. The library
// follows the units' jumps and the values' offsets without a look.
void check_character_map(std::string_view map) {
  if (map.empty()) return;
  const auto read32 = [&](size_t at) {
    uint32_t v;
    std::memcpy(&v, map.data() + at, 4);
    return v;
  };
  const size_t bytes = map.size() < 4 ? 0 : read32(0);
  if (bytes == 0 || bytes % 1024 != 0 || bytes >= map.size() - 4)
    damaged("the character map's trie has " + std::to_string(bytes) + " bytes of " + std::to_string(map.size()));
  const std::string_view strings = map.substr(4 + bytes);
  if (strings.back() != '\0') damaged("the character map's last string has no end");
  const size_t units = bytes / 4;
  for (size_t i = 0; i < units; ++i) {
    const uint32_t u = read32(4 + 4 * i);
    if (u >> 31) {  // a value: where a string begins
      if ((u & 0x7FFFFFFF) >= strings.size())
        damaged("unit " + std::to_string(i) + " of the character map points behind its strings");
      continue;
    }
    const size_t offset = static_cast<size_t>(u >> 10) << ((u & 512) >> 6);
    if (((i ^ offset) | 255) >= units)
      damaged("unit " + std::to_string(i) + " of the character map jumps behind its end");
  }
}

void check_normalizer(std::string_view message) {
  Message m(message);
  for (Field f; m.next(f);) {
    if (f.number != kCharacterMap) continue;
    expect(f, Field::Kind::bytes, "precompiled_charsmap");
    check_character_map(f.bytes);
  }
}

}  // namespace

void check_sentencepiece_model(std::string_view bytes) {
  Counts counts;
  uint64_t type = 0, fallback = 0;
  Message m(bytes);
  for (Field f; m.next(f);) {
    if (f.number >= kPieces && f.number <= kDenormalizerSpec) expect(f, Field::Kind::bytes, "a message");
    if (f.number == kPieces) {
      check_piece(f.bytes, counts);
      if (counts.pieces > static_cast<size_t>(kMaxTokenId))
        damaged("more than " + std::to_string(kMaxTokenId) + " pieces");
    } else if (f.number == kTrainerSpec) {
      Message spec(f.bytes);
      for (Field g; spec.next(g);) {
        if (g.number == kModelType) type = g.value;
        if (g.number == kByteFallback) fallback = g.value;
      }
    } else if (f.number == kNormalizerSpec || f.number == kDenormalizerSpec) {
      check_normalizer(f.bytes);
    } else if (f.number == kSelfTest) {
      damaged("carries a self test, which is not read");
    }
  }
  if (counts.pieces == 0) damaged("has no pieces");
  if (counts.unknown != 1) damaged("has " + std::to_string(counts.unknown) + " pieces of type unknown, must have one");
  if (type != kBpe) damaged("model type " + std::to_string(type) + " is not known; known: 2 (BPE)");
  if (fallback && counts.bytes != 256)
    damaged("has " + std::to_string(counts.bytes) + " byte pieces, byte fallback needs 256");
  if (!fallback && counts.bytes) damaged("has byte pieces without byte fallback");
}

std::vector<SentencePiece> sentencepiece_pieces(std::string_view bytes) {
  check_sentencepiece_model(bytes);
  std::vector<SentencePiece> pieces;
  Message m(bytes);
  for (Field f; m.next(f);) {
    if (f.number != kPieces) continue;
    SentencePiece& p = pieces.emplace_back();
    Message piece(f.bytes);
    for (Field g; piece.next(g);) {
      if (g.number == kPiece) p.text = g.bytes;
      if (g.number == kType) p.type = static_cast<int32_t>(g.value);
      const auto bits = static_cast<uint32_t>(g.value);
      if (g.number == kScore) std::memcpy(&p.score, &bits, 4);
    }
  }
  return pieces;
}

}  // namespace birkhoff::text
