#include "filters.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

namespace barkfast {
namespace {

double mass(const float* begin, const float* end, double largest) {
    double total = 0;
    for (const float* p = begin; p != end; ++p) total += std::exp(*p - largest);
    return total;
}

// The smallest logit that top-p keeps. Reorders begin .. end.
//
// Quickselect by probability mass instead of rank: of the range that may hold the threshold, each step keeps one side
// of a pivot. On average each logit is visited a few times, which is far cheaper than sorting.
float top_p_threshold(float* begin, float* end, double top_p) {
    const double largest = *std::max_element(begin, end);
    const double bound = top_p * mass(begin, end, largest);
    // Mass of all logits above the range.
    double above = 0;
    float threshold = float(largest);
    while (begin != end) {
        const float pivot = begin[(end - begin) / 2];
        float* const equal = std::partition(begin, end, [=](float x) { return x > pivot; });
        const double larger = above + mass(begin, equal, largest);
        if (larger > bound) {
            end = equal;
            continue;
        }
        threshold = pivot;
        begin = std::partition(equal, end, [=](float x) { return x == pivot; });
        above = larger + mass(equal, begin, largest);
    }
    return threshold;
}

}  // namespace

float filter_threshold(const float* logits, int64_t n, float top_p, int top_k, float* scratch) {
    float threshold = -std::numeric_limits<float>::infinity();
    if (top_p < 1) {
        std::copy(logits, logits + n, scratch);
        threshold = top_p_threshold(scratch, scratch + n, top_p);
    }
    if (top_k > 0 && top_k < n) {
        // Top-p keeps the largest logits, so their k-th largest is the k-th largest of all, if top-p keeps at least k.
        std::copy(logits, logits + n, scratch);
        std::nth_element(scratch, scratch + top_k - 1, scratch + n, std::greater<float>());
        threshold = std::max(threshold, scratch[top_k - 1]);
    }
    return threshold;
}

}  // namespace barkfast
