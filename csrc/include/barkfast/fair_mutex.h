// The lock of everything that several threads may call.
#pragma once

#include <mutex>
#include <thread>

#include "barkfast/fork.h"

namespace barkfast {

// A mutex that threads get in the order in which they asked for it. In the child of a fork it is free, unless the
// thread that forked holds it.
class FairMutex {
  public:
    FairMutex();
    FairMutex(const FairMutex&) = delete;
    FairMutex& operator=(const FairMutex&) = delete;

    // Throws std::runtime_error if this thread holds it, where a plain mutex would wait for ever.
    void lock();
    bool try_lock();
    void unlock();

    // Whether this is the child of a fork at which another thread held it: what it guards may be half changed.
    bool abandoned() const { return abandoned_; }

  private:
    struct Waiter;
    void repair();

    // Of the fields below; never held for long.
    std::mutex guard_;
    // Who holds it; no thread's id if nobody does.
    std::thread::id owner_;
    Waiter* first_ = nullptr;
    Waiter* last_ = nullptr;
    bool abandoned_ = false;
    AfterFork after_fork_;
};

}  // namespace barkfast
