// A GPT that samples tokens for a batch of sequences, one slot each, so that a step reads the weights once for all.
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

// How a sequence continues from the content of its slot.
struct Request {
    // Read one per step before the first draw. May be empty only directly after a prefill.
    std::vector<int32_t> fed;
    // Maximum number of tokens to draw; token i is drawn from slices[i % slices.size()].
    int64_t steps = 0;
    std::vector<Slice> slices;
    // Token i uses the random numbers of draw.number + i.
    Draw draw;
    // The stop token takes part in every draw and ends the sequence if drawn or at least this likely (above 1: off).
    bool has_stop = false;
    int32_t stop = 0;
    float min_p = 2;
};

enum class Status : int { idle = 0, running = 1, finished = 2, stopped = 3, failed = 4 };

// For one thread at a time: every call throws std::runtime_error while another call runs. It also throws in a forked
// child if another thread was in a call at the fork, because the slots may be half written.
class Decoder {
  public:
    // Called between steps, every 50 ms or so, while the pool is free for others. An exception ends the call.
    using Between = std::function<void()>;

    // Has the cache's number of slots. All arguments, and the cache's memory, must outlive the decoder.
    // Throws std::invalid_argument if the network is not a GPT or the cache does not match it.
    Decoder(const Network& network, const KvCache& cache, const Kernels& kernels, Pool& pool);
    ~Decoder();
    Decoder(const Decoder&) = delete;
    Decoder& operator=(const Decoder&) = delete;

    // Reset a slot and prefill a prompt, see Trunk::prefill. Throws std::invalid_argument if it does not fit.
    void prefill(int64_t slot, const int32_t* tokens, int64_t n_tokens, int64_t n_merged);

    // Start a sequence in a slot that holds a prompt, or a finished sequence whose last token is fed first.
    // Throws std::invalid_argument for an invalid request and for a running slot.
    void start(int64_t slot, const Request& request);

    // Stop drawing in this slot. Its cache is retained until the next prefill.
    void pause(int64_t slot);

    // Run decode steps: each draws a token for every running one of `slots`. Ends after `max_steps` steps, when a
    // sequence ends, or after `seconds`. A sequence with tokens left in `fed` reads one of them per step instead, and
    // draws in the step that reads the last one. Returns the number of steps.
    int64_t advance(const std::vector<int64_t>& slots, int64_t max_steps, double seconds, const Between& between);

    // Status of the slot's sequence, and the number of tokens drawn so far, without the stop token.
    std::pair<Status, int64_t> state(int64_t slot) const;
    std::vector<int32_t> tokens(int64_t slot) const;
    // Number of positions in the slot's cache.
    int64_t length(int64_t slot) const;
    // Logits of the slot's last draw: those of its slice, then the stop token's.
    // Throws std::invalid_argument if the last step did not draw in this slot.
    std::vector<float> logits(int64_t slot) const;

  private:
    struct Work;
    std::unique_ptr<Work> work_;
};

}  // namespace barkfast
