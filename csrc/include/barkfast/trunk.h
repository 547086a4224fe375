// A transformer's layers over many positions at once: a whole prompt, or a window of the fine network.
#pragma once

#include <cstdint>
#include <memory>

#include "barkfast/kernels.h"
#include "barkfast/kv.h"
#include "barkfast/network.h"
#include "barkfast/pool.h"

namespace barkfast {

// One forward pass through the layers.
struct Pass {
    // Number of positions, starting at position 0.
    int64_t rows = 0;
    // After the last layer only rows from here on are valid; the others are not finished.
    int64_t first_needed = 0;
    // Whether a position attends only to itself and those before it.
    bool causal = true;
    // Where each layer's keys and values are written and read by attention. A cache of one layer is reused by all
    // layers.
    const KvCache* cache = nullptr;
    int64_t slot = 0;
    // If not null: a second cache for the keys and values, written layer by layer into slot `kept_slot`.
    const KvCache* kept = nullptr;
    int64_t kept_slot = 0;
};

class Trunk {
  public:
    // Allocates memory for block_size rows; all arguments must outlive it.
    Trunk(const Network& network, const Kernels& kernels, Pool& pool);
    ~Trunk();
    Trunk(const Trunk&) = delete;
    Trunk& operator=(const Trunk&) = delete;

    // Write a prompt's keys and values to positions 0 .. n - 1 of a slot, and the last position's hidden state, after
    // the final norm, to `hidden` (n_embd floats). The embeddings of the first `n_merged` tokens and of the next
    // `n_merged` are summed pairwise, so that there are n = n_tokens - n_merged positions.
    // Throws std::invalid_argument if the prompt does not fit. One call at a time: other threads wait.
    void prefill(const int32_t* tokens, int64_t n_tokens, int64_t n_merged, const KvCache& cache, int64_t slot,
                 float* hidden);

    // Row `row` of the residual stream, n_embd floats: embeddings before `run`, the last layer's output after it.
    float* row(int64_t row);

    // Run all layers in place on the rows.
    void run(Pool::Session& session, const Pass& pass);

  private:
    struct Work;
    std::unique_ptr<Work> work_;
};

}  // namespace barkfast
