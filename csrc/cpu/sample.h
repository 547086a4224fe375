// Draws one token: the largest logit / temperature + Gumbel noise, with counter-based random numbers.
//
// The same as in the GPU engine (kernels/barkfast_kernels/sample). Included inside a level's namespace, after rows.h;
// filters.h must be included before.

#include "philox.h"

INLINE bool all_finite(const float* x, int64_t n) {
    // 0 times infinity or NaN is NaN, and the sum stays NaN.
    F16 broken = zero();
    for (int64_t i = 0; i < n; i += 16) broken = fma(load_part(x + i, n - i, 0.0f), zero(), broken);
    return sum(broken) == 0.0f;
}

// Softmax probability of the last of n numbers; `top` is the largest of them.
INLINE float last_probability(const float* x, int64_t n, float top) {
    F16 total = zero();
    for (int64_t i = 0; i < n; i += 16) total = add(total, exp(sub(load_part(x + i, n - i, -kInfinity), all(top))));
    float last[16];
    store(last, exp(all(x[n - 1] - top)));
    return last[0] / sum(total);
}

static Drawn sample(const float* logits, int64_t n, const Draw& draw, bool wants_last_p, float* scratch) {
    Drawn drawn;
    drawn.finite = all_finite(logits, n);
    if (!drawn.finite) return drawn;
    const bool greedy = draw.temperature == 0.0f;
    // The largest logits pass any filter.
    const bool filtered = !greedy && (draw.top_p < 1.0f || draw.top_k > 0);
    const float threshold = filtered ? filter_threshold(logits, n, draw.top_p, draw.top_k, scratch) : -kInfinity;
    // Below 1e-30 a temperature has the same effect as greedy, and the quotient would overflow.
    const float temperature = greedy ? 1.0f : draw.temperature < 1e-30f ? 1e-30f : draw.temperature;

    F16 best = all(-kInfinity), top = best;
    I16 winner = iall(0);
    for (int64_t i = 0; i < n; i += 16) {
        F16 value = load_part(logits + i, n - i, -kInfinity);
        value = div(select(less(value, all(threshold)), all(-kInfinity), value), all(temperature));
        if (wants_last_p) {
            store(scratch + i, value);
            top = max(top, value);
        }
        if (!greedy) value = add(value, gumbel_noise(draw, i));
        const Mask better = less(best, value);
        best = select(better, value, best);
        winner = bits(select(better, from_bits(iall(int32_t(i))), from_bits(winner)));
    }
    float scores[16];
    int32_t starts[16];
    store(scores, best);
    istore(starts, winner);
    drawn.index = starts[0];
    float score = scores[0];
    for (int lane = 1; lane < 16; ++lane) {
        const int32_t index = starts[lane] + lane;
        if (scores[lane] > score || (scores[lane] == score && index < drawn.index)) {
            score = scores[lane];
            drawn.index = index;
        }
    }
    if (!wants_last_p) return drawn;
    drawn.last_p = !greedy ? last_probability(scratch, n, largest(top)) : drawn.index == n - 1 ? 1.0f : 0.0f;
    return drawn;
}
