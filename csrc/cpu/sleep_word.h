// A 32-bit number that threads can sleep on until it changes.
#pragma once

#include <atomic>
#include <cstdint>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <condition_variable>
#include <mutex>
#endif

namespace barkfast {

// std::atomic::wait of C++20 does the same, but yields a few times before it sleeps. Next to a busy process each yield
// costs a scheduler time slice, some milliseconds.
class SleepWord {
  public:
    std::atomic<uint32_t> value{0};

    // Sleep while the value is `seen`, at most until `wake` after a change. May return early.
    void sleep(uint32_t seen) {
#if defined(__linux__)
        static_assert(sizeof value == sizeof(uint32_t), "a futex is 32 bits");
        syscall(SYS_futex, &value, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
#else
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [&] { return value.load() != seen; });
#endif
    }

    // Wake all sleeping threads.
    void wake() {
#if defined(__linux__)
        syscall(SYS_futex, &value, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
#else
        {
            const std::lock_guard<std::mutex> lock(mutex_);
        }
        changed_.notify_all();
#endif
    }

  private:
#if !defined(__linux__)
    std::mutex mutex_;
    std::condition_variable changed_;
#endif
};

}  // namespace barkfast
