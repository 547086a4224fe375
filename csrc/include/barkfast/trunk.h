// A transformer's layers over many positions at once: a whole prompt, or a window of the fine network.
#pragma once

#include <cstdint>
#include <memory>

#include "barkfast/kernels.h"
#include "barkfast/kv.h"
#include "barkfast/network.h"
#include "barkfast/pool.h"

namespace barkfast {

// One run through the layers.
struct Pass {
    // Positions, from 0.
    int64_t rows = 0;
    // After the last layer only rows from here on are needed, the others are left half done.
    int64_t first_needed = 0;
    // Whether a position sees only itself and those before it.
    bool causal = true;
    // Where keys and values go, and attention finds them, layer by layer; a cache of one layer serves one after the
    // other.
    const KvCache* cache = nullptr;
    int64_t slot = 0;
    // Where else they go, if that is not null: layer by layer, into the slot `kept_slot`.
    const KvCache* kept = nullptr;
    int64_t kept_slot = 0;
};

class Trunk {
  public:
    // With room for block_size rows; what it is given must outlive it.
    Trunk(const Network& network, const Kernels& kernels, Pool& pool);
    ~Trunk();
    Trunk(const Trunk&) = delete;
    Trunk& operator=(const Trunk&) = delete;

    // Put a prompt's keys and values into positions 0 .. n - 1 of a slot, and the last position's hidden state, after
    // the final norm, into `hidden` (n_embd floats). The first `n_merged` tokens and the next `n_merged` are embedded and
    // summed pairwise, so that there are n = n_tokens - n_merged positions.
    // Throws std::invalid_argument if the prompt does not fit. One call at a time: other threads wait.
    void prefill(const int32_t* tokens, int64_t n_tokens, int64_t n_merged, const KvCache& cache, int64_t slot,
                 float* hidden);

    // Row `row` of the residual stream, n_embd floats: embeddings before `run`, the last layer's output after it.
    float* row(int64_t row);

    // All layers, over the rows as they are.
    void run(Pool::Turn& turn, const Pass& pass);

  private:
    struct Work;
    std::unique_ptr<Work> work_;
};

}  // namespace barkfast
