// Top-p and top-k as one threshold.
#pragma once

#include <cstdint>

namespace barkfast {

// The least of n finite logits that passes top-p, then top-k; -infinity where both are off.
//
// Top-p keeps a logit if those strictly larger have no more than `top_p` of the softmax (1 or more: off), top-k those
// that reach the k-th largest (0: off). Equal logits share one fate. scratch: n floats.
float filter_threshold(const float* logits, int64_t n, float top_p, int top_k, float* scratch);

}  // namespace barkfast
