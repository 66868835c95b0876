// Rotary settings in the metadata and tensors of GGUF files.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "checkpoint/gguf_keys.h"
#include "ops/attention/rope.h"

namespace birkhoff::checkpoint {

// What divides the frequency of every pair, fp32 [dim / 2]. Llama 3's scaling has no keys and stands there.
inline constexpr const char* kGgufRopeFactors = "rope_freqs.weight";

// rope_scaling as config.json has it, of heads that rotate as a whole: null, linear, yarn, or llama3 where the file has
// factors: the released settings if they give these factors, else such as do. Throws Error: a type that is not known,
// factors that no settings give.
nlohmann::json gguf_rope_scaling(const GgufKeys& k, int64_t dim, double theta);
// The same of latent attention: null or yarn, which needs yarn_log_multiplier = 0.1 mscale_all_dim. Files of the family
// have mscale equal to it, so that the rotation itself is not scaled.
nlohmann::json gguf_latent_rope_scaling(const GgufKeys& k);
// The same of the compressed attention of V4, whose rotation has no gain: null or yarn.
nlohmann::json gguf_yarn_scaling(const GgufKeys& k);

// The factors [dim / 2] that say `s` of kind llama3.
std::vector<float> gguf_rope_factors(int64_t dim, double theta, const ops::RopeScaling& s);

}  // namespace birkhoff::checkpoint
