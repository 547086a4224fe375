// Top-p and top-k as one threshold.
#pragma once

#include <cstdint>

namespace barkfast {

// The smallest of n finite logits that passes top-p and then top-k; -infinity if both are off.
//
// Top-p keeps a logit if the strictly larger ones have at most `top_p` of the softmax (1 or more: off). Top-k keeps
// logits that are at least the k-th largest (0: off). Equal logits are kept or dropped together. scratch: n floats.
float filter_threshold(const float* logits, int64_t n, float top_p, int top_k, float* scratch);

}  // namespace barkfast
