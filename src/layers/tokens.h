// Where the tokens of a batch stand: what attention and rotary embedding need to know besides their values.
#pragma once
#include <cstdint>
#include <span>

namespace birkhoff::layers {

// How latent attention reads a cache (models.md D.2; equal in real arithmetic). expanded: full keys and values of every
// cached token, with the bits of a forward without a cache: kept, or made again of latents. absorbed: queries are
// mapped into the latent space and meet latents as they lie. Which of them is a matter of what the tokens are, never of
// their number: a token's bits may not depend on which others came with it.
enum class MlaForm : uint8_t { expanded, absorbed };

// One text's share of a pass over several: rows [first, first + tokens) follow `past` tokens that its caches hold.
struct CachedPart {
  int64_t first = 0, tokens = 0, past = 0;
  MlaForm form = MlaForm::expanded;
  std::span<const int32_t> pages = {};  // of its rows in every pool (ops/attention/paged_rows.h); enough for all keys
  size_t slot = 0;                      // of what layers keep besides rows (V4's windows)
  int64_t keys() const { return past + tokens; }
};

// T tokens. Without caches they are all the keys there are, M == T; with caches every part has its own, and first_key
// counts in the keys of its part. All spans live as long as the forward and backward that use them.
struct TokenContext {
  std::span<const int32_t> position;        // [T] rotary position
  std::span<const int32_t> first_key;       // [T] first key row this token may attend to
  std::span<const int32_t> segment_start;   // rows where attention never reaches back across (training)
  std::span<const int32_t> sequence_start;  // first row of each sequence (balance losses per sequence)
  std::span<const int32_t> token_id = {};   // [T] the tokens (hash routing); model::forward fills it in
  std::span<const CachedPart> parts = {};   // of tokens that go into caches, in the order of their rows
  int64_t tokens() const { return static_cast<int64_t>(position.size()); }
  // Whether tokens read their caches so; without caches they are expanded.
  bool any_form(MlaForm form) const {
    for (const CachedPart& part : parts)
      if (part.form == form) return true;
    return parts.empty() && form == MlaForm::expanded;
  }
  // What attention over the rows [first, first + count) alone needs.
  TokenContext rows(int64_t first, int64_t count) const {
    const auto f = static_cast<size_t>(first), n = static_cast<size_t>(count);
    return {position.subspan(f, n), first_key.subspan(f, n), segment_start, sequence_start};
  }
};

// What a layer's cache holds, in elements: of every further token of a long context, and whatever the length.
struct CacheSize {
  double per_token = 0;
  int64_t constant = 0;
  int64_t scales = 0;  // of every token where the cache is of 8 bits, whose type it has; 0: it has the compute type
};

}  // namespace birkhoff::layers
