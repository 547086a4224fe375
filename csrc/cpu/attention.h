// Attention of many queries at once, as two matrix products around a softmax.
#pragma once

#include <cstdint>
#include <vector>

#include "barkfast/kernels.h"
#include "barkfast/kv.h"
#include "input_rows.h"

namespace barkfast {

// Queries that are taken together: their scores stay in the second cache.
constexpr int64_t kQueryBlock = 48;

// One head's queries and what becomes of them.
struct HeadRows {
    // Row i at q + i * q_stride and out + i * out_stride, head_dim floats each.
    const float* q = nullptr;
    int64_t q_stride = 0;
    float* out = nullptr;
    int64_t out_stride = 0;
};

class Attention {
  public:
    // For caches like `cache`, whose pointers may still be null; the kernels must outlive it.
    Attention(const Kernels& kernels, const KvCache& cache, int threads);

    // out = softmax(q keys / sqrt(head_dim)) values for rows first .. end - 1, at most kQueryBlock of them. With
    // `causal` row i sees positions 0 .. i, else 0 .. n - 1. `thread` names the scratch memory.
    void run(int thread, const Matrix& keys, const Matrix& values, int64_t n, bool causal, int64_t first, int64_t end,
             const HeadRows& rows) const;

  private:
    struct Scratch {
        InputRows queries;
        Buffer<float> scores;
        InputRows weights;
    };
    const Kernels& kernels_;
    // Of queries and weights.
    const InputType type_;
    int64_t head_dim_;
    int64_t score_stride_;
    std::vector<Scratch> scratch_;
};

}  // namespace barkfast
