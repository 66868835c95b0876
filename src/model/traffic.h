// What decoding moves through memory.
#pragma once
#include <cstdint>

#include "model/model.h"

namespace birkhoff::model {

// Bytes of weights that products read for one generated token: every matrix once, of routed experts those that a token
// chooses, of latent attention's up-projections their row blocks. Without norms, tables and the row of the embedding.
int64_t weight_bytes_per_token(const Model& m);

}  // namespace birkhoff::model
