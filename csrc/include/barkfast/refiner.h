// The fine network: fills the codebooks of a window one after the other, each seeing those before it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "barkfast/kernels.h"
#include "barkfast/network.h"
#include "barkfast/pool.h"

namespace barkfast {

// What is to be filled; see FineJob in barkfast/jobs.py.
struct Window {
    // (frames, codebooks) ids, row by row.
    int32_t* codes = nullptr;
    int64_t frames = 0;
    // Frames before it are context and stay as they are.
    int64_t first_frame = 0;
    // Codebooks from here on are predicted.
    int64_t first_codebook = 0;
    // Ids allowed: 0 .. codebook_size - 1.
    int64_t codebook_size = 0;
};

// One call at a time: other threads wait.
class Refiner {
  public:
    // What it is given must outlive it. Throws std::invalid_argument if the network is not a fine network.
    Refiner(const Network& network, const Kernels& kernels, Pool& pool);
    ~Refiner();
    Refiner(const Refiner&) = delete;
    Refiner& operator=(const Refiner&) = delete;

    int64_t n_codebooks() const;
    // Codebooks that cannot be predicted.
    int64_t n_given() const;
    int64_t vocabulary() const;

    // Fill the window. The random numbers of frame t of codebook k are those of draw.number + k * frames + t.
    // Returns false, the window half filled, if logits are not finite. `between` is called before each codebook; what
    // it throws ends the work. Throws std::invalid_argument for a window that does not fit the network.
    bool refine(const Window& window, const Draw& draw, const std::function<void()>& between);

    // Logits of one codebook for all frames of (frames, codebooks) codes: (frames, vocabulary), row by row.
    void logits(const int32_t* codes, int64_t frames, int64_t codebook, float* logits);

  private:
    struct Work;
    std::unique_ptr<Work> work_;
};

}  // namespace barkfast
