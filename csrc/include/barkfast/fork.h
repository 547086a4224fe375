// What a fork leaves behind: the child process has a copy of every lock, and of the threads only the one that forked.
#pragma once

#include <functional>

namespace barkfast {

// Calls `repair` in the child of a fork, in its only thread, before fork() returns there. To be the last member of what
// it repairs: a fork in another thread then finds either all of that or nothing.
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
