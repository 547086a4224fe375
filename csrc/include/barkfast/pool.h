// A few threads that wait for work together: the caller is one of them.
#pragma once

#include <functional>

#include "barkfast/fair_mutex.h"
#include "barkfast/fork.h"

namespace barkfast {

// In the child of a fork it starts threads of its own at the next run.
class Pool {
  public:
    // `threads` at least 1, the caller's included. Throws std::system_error if one cannot be started.
    explicit Pool(int threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int size() const { return size_; }

    // Call work(thread) on every thread, thread 0 being the caller, and return when all are done. One run at a time:
    // other callers wait, and are served in their order. The first exception thrown by `work` is thrown again here; a
    // thread that throws leaves barriers to the others, which then fail too. Throws std::logic_error within a run, and
    // std::system_error if the child of a fork cannot start threads.
    void run(const std::function<void(int thread)>& work);

    // Within a run: wait until every thread has come here.
    void barrier();

  private:
    struct State;
    const int size_;
    State* state_ = nullptr;
    // Held for the length of a run.
    FairMutex run_;
    // Whether the workers are those of the process that forked.
    bool forked_ = false;
    AfterFork after_fork_;
};

// Cores that this process may use, counting a core with two hardware threads once.
int physical_cores();

}  // namespace barkfast
