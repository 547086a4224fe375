// The fine network: predicts the codebooks of a window one after the other, each conditioned on those before it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "barkfast/kernels.h"
#include "barkfast/network.h"
#include "barkfast/pool.h"

namespace barkfast {

// The window to fill; see FineJob in barkfast/jobs.py.
struct Window {
    // (frames, codebooks) ids, row-major.
    int32_t* codes = nullptr;
    int64_t frames = 0;
    // Frames before it are context and are not changed.
    int64_t first_frame = 0;
    // Codebooks from here on are predicted.
    int64_t first_codebook = 0;
    // Ids allowed: 0 .. codebook_size - 1.
    int64_t codebook_size = 0;
};

// One call at a time: other threads wait.
class Refiner {
  public:
    // All arguments must outlive it. Throws std::invalid_argument if the network is not a fine network.
    Refiner(const Network& network, const Kernels& kernels, Pool& pool);
    ~Refiner();
    Refiner(const Refiner&) = delete;
    Refiner& operator=(const Refiner&) = delete;

    int64_t n_codebooks() const;
    // Number of first codebooks that are inputs only and cannot be predicted.
    int64_t n_given() const;
    int64_t vocabulary() const;

    // Fill the window. Frame t of codebook k uses the random numbers of draw.number + k * frames + t. Returns false,
    // with the window partly filled, if logits are not finite. `between` is called before each codebook; an exception
    // that it throws ends the call. Throws std::invalid_argument for a window that does not fit the network.
    bool refine(const Window& window, const Draw& draw, const std::function<void()>& between);

    // Logits of one codebook for all frames of (frames, codebooks) codes: (frames, vocabulary), row-major.
    void logits(const int32_t* codes, int64_t frames, int64_t codebook, float* logits);

  private:
    struct Work;
    std::unique_ptr<Work> work_;
};

}  // namespace barkfast
