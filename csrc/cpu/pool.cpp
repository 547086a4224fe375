#include "barkfast/pool.h"

#include <atomic>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "sleep_word.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace barkfast {
namespace {

// Pauses before a waiting thread goes to sleep: about 50 us, longer than the gap between two phases.
constexpr int kSpins = 1500;

inline void pause_cpu() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
    __asm__ volatile("yield");
#endif
}

// Poll for a while; returns whether the condition became true.
template <typename Condition>
bool spin_until(Condition done) {
    for (int spins = 0; spins < kSpins; ++spins) {
        if (done()) return true;
        pause_cpu();
    }
    return done();
}

// Whether this thread is in a session of any pool.
thread_local bool in_session = false;

}  // namespace

struct Pool::State {
    std::vector<std::thread> workers;

    // Items of the phase that no thread has taken: the first in the low half, the end in the high half.
    alignas(64) std::atomic<uint64_t> items{0};
    // Written only while no thread has an item, read only by threads that have one.
    Session::Call call{};

    // Items that are not done. The caller sleeps on it, after it sets caller_sleeps.
    alignas(64) SleepWord left;
    std::atomic<bool> caller_sleeps{false};

    // Counts how often workers were woken. A worker reads it, sets some_sleep, then sleeps on it.
    alignas(64) SleepWord wakes;
    std::atomic<bool> some_sleep{false};
    std::atomic<bool> stop{false};

    std::atomic<bool> failed{false};
    std::mutex failure;
    std::exception_ptr error;

    static bool any(uint64_t items) { return uint32_t(items) < uint32_t(items >> 32); }

    // Take the first or the last item of the phase. Returns false if there is none.
    bool take(bool first, int64_t& item) {
        uint64_t seen = items.load(std::memory_order_acquire);
        while (any(seen)) {
            item = first ? int64_t(uint32_t(seen)) : int64_t(seen >> 32) - 1;
            const uint64_t rest = first ? seen + 1 : seen - (uint64_t(1) << 32);
            // The phase may have changed since the load: the item taken is then one of the current phase.
            if (items.compare_exchange_weak(seen, rest, std::memory_order_acq_rel, std::memory_order_acquire))
                return true;
        }
        return false;
    }

    void do_item(int thread, int64_t item) {
        if (!failed.load(std::memory_order_acquire)) {
            try {
                call.function(call.work, thread, item);
            } catch (...) {
                const std::lock_guard<std::mutex> lock(failure);
                if (!error) error = std::current_exception();
                failed.store(true, std::memory_order_release);
            }
        }
        // Sequentially consistent on both sides: this thread sees caller_sleeps, or the caller sees the last item done.
        if (left.value.fetch_sub(1) == 1 && caller_sleeps.load()) left.wake();
    }

    void serve(int thread) {
        for (;;) {
            const auto called = [this] { return any(items.load(std::memory_order_acquire)) || stop.load(); };
            while (!spin_until(called)) {
                const uint32_t seen = wakes.value.load();
                some_sleep.store(true);
                // Sequentially consistent on both sides: this sees the items, or the caller sees some_sleep.
                if (!any(items.load()) && !stop.load()) wakes.sleep(seen);
            }
            if (stop.load()) return;
            in_session = true;
            for (int64_t item; take(false, item);) do_item(thread, item);
            in_session = false;
        }
    }

    void wake_workers() {
        if (!some_sleep.load() || !some_sleep.exchange(false)) return;
        wakes.value.fetch_add(1);
        wakes.wake();
    }

    void run(const Session::Call& what, int64_t n) {
        call = what;
        left.value.store(uint32_t(n), std::memory_order_relaxed);
        items.store(uint64_t(n) << 32);
        wake_workers();
        for (int64_t item; take(true, item);) do_item(0, item);
        if (!spin_until([this] { return left.value.load(std::memory_order_acquire) == 0; })) {
            caller_sleeps.store(true);
            while (const uint32_t seen = left.value.load()) left.sleep(seen);
            caller_sleeps.store(false);
        }
        if (failed.load(std::memory_order_relaxed)) {
            failed.store(false, std::memory_order_relaxed);
            std::rethrow_exception(std::exchange(error, nullptr));
        }
    }

    void end() {
        stop.store(true);
        wake_workers();
        for (std::thread& worker : workers) worker.join();
    }

    static State* make(int threads) {
        State* state = new State;
        try {
            for (int i = 1; i < threads; ++i) state->workers.emplace_back([state, i] { state->serve(i); });
        } catch (...) {
            state->end();
            delete state;
            throw;
        }
        return state;
    }
};

Pool::Pool(int threads) : size_(threads), after_fork_([this] { forked_ = true; }) {
    if (threads < 1)
        throw std::invalid_argument("a pool of " + std::to_string(threads) + " threads; expected at least 1");
    state_ = State::make(threads);
}

Pool::~Pool() {
    // A forked child has no workers to join, only a copy of their memory, which is leaked.
    if (forked_) return;
    state_->end();
    delete state_;
}

namespace {

FairMutex& check_not_nested(FairMutex& mutex) {
    if (in_session) throw std::logic_error("a session of a pool within a session; expected one after the other");
    return mutex;
}

}  // namespace

Pool::Session::Session(Pool& pool) : pool_(pool), lock_(check_not_nested(pool.mutex_)) {
    if (pool.forked_) {
        // The parent's state is leaked: a worker may have been using it at the fork.
        pool.state_ = State::make(pool.size_);
        pool.forked_ = false;
    }
    in_session = true;
}

Pool::Session::~Session() { in_session = false; }

void Pool::Session::run(const Call& call, int64_t n) { pool_.state_->run(call, n); }

}  // namespace barkfast
