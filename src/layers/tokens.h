// Where the tokens of a batch stand: what attention and rotary embedding need to know besides their values.
#pragma once
#include <cstdint>
#include <span>

namespace birkhoff::layers {

// T tokens, the last T of M keys (M == T without a cache). All spans live as long as the forward and backward that use
// them.
struct TokenContext {
  std::span<const int32_t> position;        // [T] rotary position
  std::span<const int32_t> first_key;       // [T] first key row this token may attend to
  std::span<const int32_t> segment_start;   // rows where attention never reaches back across (training)
  std::span<const int32_t> sequence_start;  // first row of each sequence (balance losses per sequence)
  std::span<const int32_t> token_id = {};   // [T] the tokens (hash routing); model::forward fills it in
  int64_t tokens() const { return static_cast<int64_t>(position.size()); }
};

// What a layer's cache holds, in elements: of every further token of a long context, and whatever the length.
struct CacheSize {
  double per_token = 0;
  int64_t constant = 0;
};

}  // namespace birkhoff::layers
