#include "barkfast/fair_mutex.h"

#include <condition_variable>
#include <new>
#include <stdexcept>

namespace barkfast {

// On the waiting thread's stack, until that thread has the mutex.
struct FairMutex::Waiter {
    std::thread::id thread = std::this_thread::get_id();
    std::condition_variable wake;
    Waiter* next = nullptr;
};

FairMutex::FairMutex() : after_fork_([this] { repair(); }) {}

void FairMutex::lock() {
    std::unique_lock<std::mutex> guard(guard_);
    const std::thread::id me = std::this_thread::get_id();
    if (owner_ == me) throw std::runtime_error("this thread is at work with it already; a call within a call");
    if (owner_ == std::thread::id()) {
        owner_ = me;
        return;
    }
    Waiter waiter;
    (first_ ? last_->next : first_) = &waiter;
    last_ = &waiter;
    waiter.wake.wait(guard, [&] { return owner_ == me; });
}

bool FairMutex::try_lock() {
    const std::lock_guard<std::mutex> guard(guard_);
    if (owner_ != std::thread::id()) return false;
    owner_ = std::this_thread::get_id();
    return true;
}

void FairMutex::unlock() {
    const std::lock_guard<std::mutex> guard(guard_);
    if (!first_) {
        owner_ = std::thread::id();
        return;
    }
    // Hand it over, so that no new caller gets ahead. Notify under the guard: the waiter is destroyed soon after.
    Waiter& next = *first_;
    first_ = next.next;
    owner_ = next.thread;
    next.wake.notify_one();
}

void FairMutex::repair() {
    // Another thread may have held the guard, and the waiting threads do not exist in the child.
    new (&guard_) std::mutex();
    first_ = last_ = nullptr;
    if (owner_ == std::thread::id() || owner_ == std::this_thread::get_id()) return;
    owner_ = std::thread::id();
    abandoned_ = true;
}

}  // namespace barkfast
