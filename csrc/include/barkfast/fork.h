// Repairs after fork(): the child process has a copy of every lock, but only the thread that forked.
#pragma once

#include <functional>

namespace barkfast {

// Calls `repair` in a forked child, in its only thread, before fork() returns there. Declare it as the last member of
// the object: `repair` is then registered only while all other members exist.
class AfterFork {
  public:
    explicit AfterFork(std::function<void()> repair);
    ~AfterFork();
    AfterFork(const AfterFork&) = delete;
    AfterFork& operator=(const AfterFork&) = delete;

  private:
    friend struct ForkRegistry;
    std::function<void()> repair_;
};

}  // namespace barkfast
