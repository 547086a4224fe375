// Attention of many queries at once, as two matrix products around a softmax.
#pragma once

#include <cstdint>
#include <vector>

#include "barkfast/kernels.h"
#include "barkfast/kv.h"
#include "input_rows.h"

namespace barkfast {

// Queries per work item: few enough that their scores stay in the L2 cache.
constexpr int64_t kQueryBlock = 48;

// One head's queries and outputs.
struct HeadRows {
    // Row i at q + i * q_stride and out + i * out_stride, head_dim floats each.
    const float* q = nullptr;
    int64_t q_stride = 0;
    float* out = nullptr;
    int64_t out_stride = 0;
};

class Attention {
  public:
    // For caches of the shape of `cache`, whose pointers may still be null. The kernels must outlive this object.
    Attention(const Kernels& kernels, const KvCache& cache, int threads);

    // out = softmax(q keys / sqrt(head_dim)) values for rows first .. end - 1, at most kQueryBlock of them. With
    // `causal` row i attends to positions 0 .. i, else to 0 .. n - 1. `thread` selects the scratch memory.
    void run(int thread, const Matrix& keys, const Matrix& values, int64_t n, bool causal, int64_t first, int64_t end,
             const HeadRows& rows) const;

  private:
    struct Scratch {
        InputRows queries;
        Buffer<float> scores;
        InputRows weights;
    };
    const Kernels& kernels_;
    // Input type of queries and of attention weights.
    const InputType type_;
    int64_t head_dim_;
    int64_t score_stride_;
    std::vector<Scratch> scratch_;
};

}  // namespace barkfast
