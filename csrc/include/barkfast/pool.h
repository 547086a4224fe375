// A few threads that wait for work together: the caller is one of them.
#pragma once

#include <functional>

namespace barkfast {

class Pool {
  public:
    // `threads` at least 1, the caller's included. Throws std::system_error if one cannot be started.
    explicit Pool(int threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int size() const;

    // Call work(thread) on every thread, thread 0 being the caller, and return when all are done. One run at a time:
    // other callers wait. The first exception thrown by `work` is thrown again here; a thread that throws leaves
    // barriers to the others, which then fail too. Not to be called from within a run.
    void run(const std::function<void(int thread)>& work);

    // Within a run: wait until every thread has come here.
    void barrier();

  private:
    struct State;
    State* state_;
};

// Cores that this process may use, counting a core with two hardware threads once.
int physical_cores();

}  // namespace barkfast
