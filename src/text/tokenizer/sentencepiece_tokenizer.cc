#include "text/tokenizer/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include "core/error.h"
#include "io/mapped_file.h"

namespace birkhoff::text {
namespace {

constexpr std::string_view kPieceSpace = "\u2581";

// ModelProto.normalizer_spec (field 3) with precompiled_charsmap (2) empty, add_dummy_prefix (3) and
// remove_extra_whitespaces (4) false. Behind a serialised model it is merged into the one that stands there
// (protobuf.dev/programming-guides/encoding, "Last One Wins").
constexpr std::string_view kPlainNormalizer("\x1a\x06\x12\x00\x18\x00\x20\x00", 8);

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(std::string_view bytes, const std::vector<AddedToken>& added, SpacePrefix prefix)
      : prefix_(prefix) {
    check_sentencepiece_model(bytes);
    std::string model(bytes);
    if (prefix != SpacePrefix::always) model += kPlainNormalizer;
    check(sp_.LoadFromSerializedProto(model));
    pieces_ = sp_.GetPieceSize();
    const auto known = [](int id) { return id >= 0 ? std::optional<int32_t>(id) : std::nullopt; };
    bos_ = known(sp_.bos_id());
    eos_ = known(sp_.eos_id());
    pad_ = known(sp_.pad_id());
    if (bos_) before_ = {*bos_};  // as Llama's tokenizer class does
    for (AddedToken t : added) {
      const std::optional<int32_t> here = id(t.content);
      if (t.id < 0) {  // a special token by its name alone
        if (!here || added_.by_id(*here)) continue;
        t.id = *here;
      }
      if (here ? *here != t.id : t.id < pieces_)
        throw Error("tokenizer", "added token \"" + t.content + "\" has id " + std::to_string(t.id) +
                                     ", the SentencePiece model has " +
                                     (here ? "it at " + std::to_string(*here) : "another token there"));
      t.normalized = false;  // the library normalizes by itself
      added_.add(t, t.content);
    }
  }

  void encode(std::string_view text, std::vector<int32_t>& ids, Added added) const override {
    check_text(text);
    std::vector<AddedTokens::Found> found;
    added_.find(text, false, added == Added::match ? AddedScope::all : AddedScope::letters, found);
    encode_between(text, found, ids);
  }

  void encode_parts(std::span<const Part> parts, std::vector<int32_t>& ids) const override {
    std::vector<AddedTokens::Found> found;
    const std::string text = find_in_parts(parts, added_, found);
    encode_between(text, found, ids);
  }

  std::string decode(std::span<const int32_t> ids, bool skip_special) const override {
    std::string out, part;
    std::vector<int> run;
    const auto close = [&] {
      if (run.empty()) return;
      check(sp_.Decode(run, &part));
      out += part;
      run.clear();
    };
    for (const int32_t id : ids) {
      if (skip_special && is_special(id)) continue;
      const AddedToken* t = added_.by_id(id);
      if (t && (id >= pieces_ || t->special)) {
        close();
        out += t->content;
      } else if (id >= 0 && id < pieces_) {
        run.push_back(id);
      }
    }
    close();
    if (prefix_ == SpacePrefix::first && out.starts_with(' ')) out.erase(0, 1);
    return out;
  }

  bool append_bytes(int32_t, std::string&) const override { return false; }
  int32_t size() const override { return std::max(pieces_, added_.end()); }
  std::optional<std::string> token(int32_t id) const override {
    if (id >= 0 && id < pieces_) return sp_.IsUnused(id) ? std::nullopt : std::optional(sp_.IdToPiece(id));
    const AddedToken* t = added_.by_id(id);
    return t ? std::optional(t->content) : std::nullopt;
  }
  std::optional<int32_t> id(std::string_view token) const override {
    const int32_t added = added_.find(token);
    if (added >= 0) return added;
    const int id = sp_.PieceToId({token.data(), token.size()});
    return sp_.IdToPiece(id) == token ? std::optional<int32_t>(id) : std::nullopt;
  }
  bool is_special(int32_t id) const override {
    const AddedToken* t = added_.by_id(id);
    return (t && t->special) || (id >= 0 && id < pieces_ && sp_.IsControl(id));
  }

 private:
  static void check(const sentencepiece::util::Status& s) {
    if (!s.ok()) throw Error("tokenizer", "SentencePiece: " + s.ToString());
  }
  void encode_between(std::string_view text, const std::vector<AddedTokens::Found>& found,
                      std::vector<int32_t>& ids) const {
    size_t at = 0;
    for (const AddedTokens::Found& f : found) {
      if (f.span.begin > at) encode_pieces(text.substr(at, f.span.begin - at), at == 0, ids);
      ids.push_back(f.token->id);
      at = f.span.end;
    }
    encode_pieces(text.substr(at), at == 0, ids);
  }
  void encode_pieces(std::string_view text, bool first, std::vector<int32_t>& ids) const {
    if (text.empty()) return;
    const bool prefix =
        prefix_ == SpacePrefix::first && first && !text.starts_with(' ') && !text.starts_with(kPieceSpace);
    const std::string prefixed = prefix ? " " + std::string(text) : "";
    if (prefix) text = prefixed;
    std::vector<int> pieces;
    check(sp_.Encode({text.data(), text.size()}, &pieces));
    ids.insert(ids.end(), pieces.begin(), pieces.end());
  }
  const SpacePrefix prefix_;
  sentencepiece::SentencePieceProcessor sp_;
  AddedTokens added_;
  int32_t pieces_ = 0;
};

}  // namespace

std::shared_ptr<Tokenizer> parse_sentencepiece_model(std::string_view bytes, const std::vector<AddedToken>& added,
                                                     SpacePrefix prefix) {
  return std::make_shared<SentencePieceTokenizer>(bytes, added, prefix);
}

std::shared_ptr<Tokenizer> read_sentencepiece_model(const std::string& path, const std::vector<AddedToken>& added,
                                                    SpacePrefix prefix) {
  const io::MappedFile file(path);
  const auto bytes = file.bytes();
  return about_file(path, [&] {
    return parse_sentencepiece_model({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, added, prefix);
  });
}

}  // namespace birkhoff::text
