// A GPT that draws tokens for several sequences at once, one slot each, so that its weights are read once for all.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "barkfast/kernels.h"
#include "barkfast/kv.h"
#include "barkfast/network.h"
#include "barkfast/pool.h"

namespace barkfast {

// Token ids first .. end - 1.
struct Slice {
    int32_t first = 0;
    int32_t end = 0;
};

// How a sequence goes on from what its slot holds.
struct Request {
    // Read one by one before the first draw; empty right behind a prompt.
    std::vector<int32_t> fed;
    // At most so many tokens are drawn, token i from slices[i % slices.size()].
    int64_t steps = 0;
    std::vector<Slice> slices;
    // Token i is drawn with draw.number + i.
    Draw draw;
    // A token that competes in every draw and ends the sequence, also when it is at least this likely (above 1: off).
    bool has_stop = false;
    int32_t stop = 0;
    float min_p = 2;
};

enum class Status : int { idle = 0, running = 1, finished = 2, stopped = 3, failed = 4 };

// One thread at a time. Every call throws std::runtime_error while another one is under way, and in the child of a fork
// at which one was: what the slots hold may then be half written.
class Decoder {
  public:
    // Called between steps, every 50 ms or so, while the pool serves others; what it throws ends the call.
    using Between = std::function<void()>;

    // As many slots as the cache has. What it is given must outlive it, the cache's memory too.
    // Throws std::invalid_argument if the cache does not belong to such a network.
    Decoder(const Network& network, const KvCache& cache, const Kernels& kernels, Pool& pool);
    ~Decoder();
    Decoder(const Decoder&) = delete;
    Decoder& operator=(const Decoder&) = delete;

    // Begin a slot anew with a prompt, see Trunk::prefill. Throws std::invalid_argument if it does not fit.
    void prefill(int64_t slot, const int32_t* tokens, int64_t n_tokens, int64_t n_merged);

    // Start a sequence in a slot that holds a prompt, or a finished sequence whose last token is the first one fed.
    // Throws std::invalid_argument for what cannot be run.
    void seat(int64_t slot, const Request& request);

    // Nothing more will be drawn in this slot. What it has read stays until the next prompt.
    void rest(int64_t slot);

    // Draw a token for each running one of `slots`, again and again, until `max_steps` times, until one of them ends
    // or until `seconds` have passed. A sequence that has tokens to be fed reads one of them instead, and draws in the
    // same step as it reads the last. Returns the number of steps.
    int64_t advance(const std::vector<int64_t>& slots, int64_t max_steps, double seconds, const Between& between);

    // What became of the slot's sequence, and how many tokens it has drawn so far, without the stop token.
    std::pair<Status, int64_t> state(int64_t slot) const;
    std::vector<int32_t> tokens(int64_t slot) const;
    // Positions that the slot's cache holds.
    int64_t length(int64_t slot) const;
    // What the slot's last token was drawn from: its slice's logits, and the stop token's behind them.
    // Throws std::invalid_argument if the last step did not draw in this slot.
    std::vector<float> logits(int64_t slot) const;

  private:
    struct Work;
    std::unique_ptr<Work> work_;
};

}  // namespace barkfast
