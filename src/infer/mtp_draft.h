// Drafts of the model's own prediction modules (model/mtp.h): module k says what follows k tokens after the one that
// the model predicts, the last one goes on from its own hidden state where more are asked for. They cost a pass over
// their own blocks, which all texts share.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "infer/session.h"

namespace birkhoff::infer {

struct MtpDraft {
  Session* session = nullptr;  // that can_predict()
  int32_t next = 0;            // the token behind what it has read
  size_t most = 0;             // ids to draft, which have room behind it; at least 1
  std::vector<int32_t> ids;    // assigned: the most probable ones, one after the other
};

// Of different sessions of the engine, Engine::kPassTokens at most. What the model has read of them stays as it is.
// Throws Error when there is no room for what modules keep.
void draft_by_mtp(const Engine& engine, std::span<MtpDraft> drafts);

// What the modules keep of prompts that the model has read; nothing where they are not asked for.
void read_prompts_for_mtp(const Engine& engine, std::span<Session* const> sessions);

}  // namespace birkhoff::infer
