// A few threads that work through one phase after the other together: the caller is one of them.
#pragma once

#include <cstdint>
#include <mutex>

#include "barkfast/fair_mutex.h"
#include "barkfast/fork.h"

namespace barkfast {

// In the child of a fork it starts threads of its own at the next turn.
class Pool {
  public:
    class Turn;

    // `threads` at least 1, the caller's included. Throws std::system_error if one cannot be started.
    explicit Pool(int threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int size() const { return size_; }

  private:
    struct State;
    const int size_;
    State* state_ = nullptr;
    // Held for the length of a turn.
    FairMutex turn_;
    // Whether the workers are those of the process that forked.
    bool forked_ = false;
    AfterFork after_fork_;
};

// The pool for oneself, for the length of several phases: other callers wait, and are served in their order.
//
// A phase is over when its items are done, whoever did them. A thread that the system has put aside is waited for only
// if it has an item in its hands.
class Pool::Turn {
  public:
    // Throws std::logic_error within a turn, and std::system_error if the child of a fork cannot start threads.
    explicit Turn(Pool& pool);
    ~Turn();
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

    int size() const { return pool_.size(); }

    // One phase: call work(thread, i) for i in 0 .. n - 1, below 2^32. No two items at a time have the same `thread`,
    // 0 for the caller's up to size() - 1, so that it may name scratch memory. The caller takes the items from the
    // front, the others from the back: with two threads each meets the same items again in the next such phase.
    //
    // The first exception thrown by `work` is thrown again here, when what was begun is done; the rest is left out.
    template <class Work>
    void share(int64_t n, const Work& work) {
        if (n <= 1 || size() == 1) {
            for (int64_t i = 0; i < n; ++i) work(0, i);
            return;
        }
        run({[](const void* what, int thread, int64_t i) { (*static_cast<const Work*>(what))(thread, i); }, &work}, n);
    }

  private:
    friend class Pool;
    // Work as a function and what it is called with.
    struct Call {
        void (*function)(const void* work, int thread, int64_t i);
        const void* work;
    };
    void run(const Call& call, int64_t n);

    Pool& pool_;
    const std::lock_guard<FairMutex> lock_;
};

}  // namespace barkfast
