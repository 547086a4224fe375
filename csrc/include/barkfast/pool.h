// A thread pool that runs one phase after another. The calling thread is one of its threads.
#pragma once

#include <cstdint>
#include <mutex>

#include "barkfast/fair_mutex.h"
#include "barkfast/fork.h"

namespace barkfast {

// In a forked child it starts new threads at the next session.
class Pool {
  public:
    class Session;

    // `threads`: at least 1, including the caller. Throws std::system_error if a thread cannot be started.
    explicit Pool(int threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int size() const { return size_; }

  private:
    struct State;
    const int size_;
    State* state_ = nullptr;
    // Held during a session.
    FairMutex mutex_;
    // Whether the workers belong to the process that forked this one.
    bool forked_ = false;
    AfterFork after_fork_;
};

// Exclusive use of the pool for several phases. Other callers wait and are served in order.
//
// A phase ends when all its items are done, by whichever threads. It waits for a thread that the system has preempted
// only if that thread has taken an item.
class Pool::Session {
  public:
    // Throws std::logic_error inside another session, and std::system_error if a forked child cannot start threads.
    explicit Session(Pool& pool);
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    int size() const { return pool_.size(); }

    // One phase: call work(thread, i) for i in 0 .. n - 1, with n below 2^32. `thread` is 0 for the caller and up to
    // size() - 1; concurrent items have different ones, so it can index scratch memory. The caller takes items from
    // the front, the others from the back: with two threads, each gets the same items in the next such phase.
    //
    // Rethrows the first exception of `work` after the started items are done; items not yet started are skipped.
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
    // The work as a function and its first argument.
    struct Call {
        void (*function)(const void* work, int thread, int64_t i);
        const void* work;
    };
    void run(const Call& call, int64_t n);

    Pool& pool_;
    const std::lock_guard<FairMutex> lock_;
};

}  // namespace barkfast
