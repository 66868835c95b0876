#include "text/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include "core/error.h"
#include "io/mapped_file.h"

namespace birkhoff::text {
namespace {

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(std::string_view bytes, const std::vector<AddedToken>& added) {
    check_sentencepiece_model(bytes);
    check(sp_.LoadFromSerializedProto({bytes.data(), bytes.size()}));
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
        throw Error("tokenizer", "added token \"" + t.content + "\" has id " + std::to_string(t.id) + ", the SentencePiece model has " + (here ? "it at " + std::to_string(*here) : "another token there"));
      t.normalized = false;  // the library normalizes by itself
      added_.add(t, t.content);
    }
  }

  void encode(std::string_view text, std::vector<int32_t>& ids, Added added) const override {
    check_text(text);
    std::vector<AddedTokens::Found> found;
    added_.find(text, false, added == Added::match ? AddedScope::all : AddedScope::letters, found);
    size_t at = 0;
    for (const AddedTokens::Found& f : found) {
      if (f.span.begin > at) encode_pieces(text.substr(at, f.span.begin - at), ids);
      ids.push_back(f.token->id);
      at = f.span.end;
    }
    encode_pieces(text.substr(at), ids);
  }

  void encode_parts(std::span<const Part> parts, std::vector<int32_t>& ids) const override {
    std::vector<AddedTokens::Found> found;
    const std::string text = find_in_parts(parts, added_, found);
    size_t at = 0;
    for (const AddedTokens::Found& f : found) {
      if (f.span.begin > at) encode_pieces(std::string_view(text).substr(at, f.span.begin - at), ids);
      ids.push_back(f.token->id);
      at = f.span.end;
    }
    encode_pieces(std::string_view(text).substr(at), ids);
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
    return out;
  }

  bool append_bytes(int32_t, std::string&) const override { return false; }
  int32_t size() const override { return std::max(pieces_, added_.end()); }
  std::optional<std::string> token(int32_t id) const override {
    if (id >= 0 && id < pieces_) return sp_.IdToPiece(id);
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
  void encode_pieces(std::string_view text, std::vector<int32_t>& ids) const {
    if (text.empty()) return;
    std::vector<int> pieces;
    check(sp_.Encode({text.data(), text.size()}, &pieces));
    ids.insert(ids.end(), pieces.begin(), pieces.end());
  }
  sentencepiece::SentencePieceProcessor sp_;
  AddedTokens added_;
  int32_t pieces_ = 0;
};

}  // namespace

std::shared_ptr<Tokenizer> parse_sentencepiece_model(std::string_view bytes, const std::vector<AddedToken>& added) {
  return std::make_shared<SentencePieceTokenizer>(bytes, added);
}

std::shared_ptr<Tokenizer> read_sentencepiece_model(const std::string& path, const std::vector<AddedToken>& added) {
  const io::MappedFile file(path);
  const auto bytes = file.bytes();
  try {
    return parse_sentencepiece_model({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, added);
  } catch (const Error& e) {
    const std::string said = e.what();
    throw Error(e.where(), path + ": " + said.substr(said.find(']') + 2), e.hint(), e.code());
  }
}

}  // namespace birkhoff::text
