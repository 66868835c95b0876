// Queries in blocks that share one gathered copy of the keys their lists name: how sparse attention and the indexer cut
// their work.
#pragma once
#include <cstdint>

#include "core/arena.h"
#include "core/exec.h"
#include "core/view.h"
#include "kernels/attention/key_block.h"

namespace birkhoff::ops {

class KeyBlocks {
 public:
  // per_block queries each (at most 16), lists in rows of `keys`, which name rows below key_rows. Takes its memory from
  // scratch and, unless the run is dry, reads and checks the lists: ascending, without repeats, -1 after the last. It
  // refers to `keys`.
  KeyBlocks(const Exec& exec, CIndexMat keys, int64_t per_block, int64_t key_rows, Arena& scratch);

  int64_t size() const { return (keys_.rows + per_block_ - 1) / per_block_; }
  int64_t first_query(int64_t block) const { return block * per_block_; }
  int64_t most_keys() const { return most_; }  // of any block
  kernels::KeyBlock operator[](int64_t block) const;
  // Index in the block's keys of the first that is not below `key`.
  int64_t lower_bound(int64_t block, int64_t key) const;

 private:
  CIndexMat keys_;
  int64_t per_block_, most_, key_rows_;
  int32_t* count_;  // [blocks]
  int32_t* union_;  // [blocks, most] when per_block > 1
  uint16_t* seen_;  // [blocks, most]
  void build(int64_t block) const;
};

// The panel of blocks whose stored weights (two matrices a head group, `columns` wide) take at most some 32 MiB.
int64_t blocks_per_panel(int64_t blocks, int64_t bytes_per_block);

}  // namespace birkhoff::ops
