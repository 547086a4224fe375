// The threads of a pool, working through one phase after the other: each phase's items are dealt out as threads get
// free, and the next phase begins when all are done.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

#include "barkfast/pool.h"

namespace barkfast {

class Team {
  public:
    explicit Team(Pool& pool) : pool_(pool), phases_(size_t(pool.size())) {}

    int size() const { return pool_.size(); }

    // Call work(thread) on every thread; all of them must take part in the same phases.
    void run(const std::function<void(int thread)>& work) {
        // A run that failed may have left the counters anywhere.
        for (auto& phase : phases_) phase.number = 0;
        next_[0].item = next_[1].item = 0;
        pool_.run(work);
    }

    // One phase: call work(i) for i in 0 .. n - 1, each on one thread.
    template <class Work>
    void share(int thread, int64_t n, const Work& work) {
        int64_t& phase = phases_[size_t(thread)].number;
        std::atomic<int64_t>& next = next_[phase % 2].item;
        // Nobody counts with the other one any more: all have left the phase before this.
        if (thread == 0) next_[(phase + 1) % 2].item.store(0, std::memory_order_relaxed);
        ++phase;
        for (;;) {
            const int64_t i = next.fetch_add(1, std::memory_order_relaxed);
            if (i >= n) break;
            work(i);
        }
        pool_.barrier();
    }

  private:
    // On cache lines of their own, as each is written by one thread, or all the time.
    struct alignas(64) Phase {
        int64_t number = 0;
    };
    struct alignas(64) Counter {
        std::atomic<int64_t> item{0};
    };
    Pool& pool_;
    std::vector<Phase> phases_;
    Counter next_[2];
};

}  // namespace barkfast
