// The mutex of all objects that several threads may call.
#pragma once

#include <mutex>
#include <thread>

#include "barkfast/fork.h"

namespace barkfast {

// A mutex that threads acquire in the order of their requests. In a forked child it is unlocked, unless the thread that
// forked holds it.
class FairMutex {
  public:
    FairMutex();
    FairMutex(const FairMutex&) = delete;
    FairMutex& operator=(const FairMutex&) = delete;

    // Throws std::runtime_error if this thread already holds it, where std::mutex would deadlock.
    void lock();
    bool try_lock();
    void unlock();

    // True in a forked child if another thread held it at the fork: the guarded state may be half written.
    bool abandoned() const { return abandoned_; }

  private:
    struct Waiter;
    void repair();

    // Guards the fields below; never held for long.
    std::mutex guard_;
    // The thread that holds the mutex; a default std::thread::id if none does.
    std::thread::id owner_;
    Waiter* first_ = nullptr;
    Waiter* last_ = nullptr;
    bool abandoned_ = false;
    AfterFork after_fork_;
};

}  // namespace barkfast
