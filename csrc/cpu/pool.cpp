#include "barkfast/pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace barkfast {
namespace {

// Pauses before a worker without work goes to sleep, about 50 us: longer than the gap between two runs.
constexpr int kIdleSpins = 1500;
// Pauses before a thread that waits for others lets somebody else have the core, who may be the one it waits for.
constexpr int kWaitSpins = 200;

inline void pause_cpu() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
    __asm__ volatile("yield");
#endif
}

// Thrown by a barrier that some thread will never come to, because it failed.
struct BrokenBarrier : std::runtime_error {
    BrokenBarrier() : std::runtime_error("another thread of the pool failed") {}
};

// Whether this thread is in a run, of whichever pool.
thread_local bool in_run = false;

}  // namespace

struct Pool::State {
    explicit State(int threads) : size(threads) {}

    const int size;
    std::vector<std::thread> workers;

    // The current run: a new number of `round` starts it, and `busy` workers have not finished it.
    const std::function<void(int)>* work = nullptr;
    std::atomic<uint64_t> round{0};
    std::atomic<int> busy{0};
    std::atomic<bool> stop{false};

    // Workers that sleep until the next round.
    std::mutex sleep;
    std::condition_variable wake;
    std::atomic<int> asleep{0};

    std::atomic<int> arrived{0};
    std::atomic<uint32_t> phase{0};

    std::atomic<bool> broken{false};
    std::mutex failure;
    std::exception_ptr error;

    // Spin for a while, then let other threads have the core between two looks.
    template <typename Condition>
    static void wait_until(Condition done) {
        for (int spins = 0; !done(); ++spins) {
            if (spins < kWaitSpins) {
                pause_cpu();
            } else {
                std::this_thread::yield();
            }
        }
    }

    void fail(std::exception_ptr cause) {
        std::lock_guard<std::mutex> lock(failure);
        if (!error) error = cause;
        broken.store(true, std::memory_order_release);
    }

    void do_work(int thread) {
        in_run = true;
        try {
            (*work)(thread);
        } catch (const BrokenBarrier&) {
            // Whoever broke it has said why.
        } catch (...) {
            fail(std::current_exception());
        }
        in_run = false;
    }

    void serve(int thread) {
        uint64_t seen = 0;
        for (;;) {
            for (int spins = 0; round.load(std::memory_order_acquire) == seen && spins < kIdleSpins; ++spins)
                pause_cpu();
            if (round.load(std::memory_order_acquire) == seen) {
                std::unique_lock<std::mutex> lock(sleep);
                asleep.fetch_add(1);
                wake.wait(lock, [&] { return round.load() != seen; });
                asleep.fetch_sub(1);
            }
            ++seen;
            if (stop.load(std::memory_order_acquire)) return;
            do_work(thread);
            busy.fetch_sub(1, std::memory_order_release);
        }
    }

    void start_round() {
        round.fetch_add(1);
        // Sequentially consistent on both sides: either this sees the sleeper, or the sleeper sees the new round.
        if (asleep.load() > 0) {
            std::lock_guard<std::mutex> lock(sleep);
            wake.notify_all();
        }
    }

    void end() {
        stop.store(true, std::memory_order_release);
        start_round();
        for (std::thread& worker : workers) worker.join();
    }

    static State* make(int threads) {
        State* state = new State(threads);
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
    // In the child of a fork there are no workers to join: the memory is all that came along.
    if (forked_) return;
    state_->end();
    delete state_;
}

void Pool::run(const std::function<void(int)>& work) {
    if (in_run) throw std::logic_error("a run of a pool within a run; expected one after the other");
    const std::lock_guard<FairMutex> lock(run_);
    if (forked_) {
        // The parent's state, which a worker may have held locked, is left alone.
        state_ = State::make(size_);
        forked_ = false;
    }
    State& s = *state_;
    s.work = &work;
    s.error = nullptr;
    s.broken.store(false, std::memory_order_relaxed);
    s.arrived.store(0, std::memory_order_relaxed);
    if (s.size > 1) {
        s.busy.store(s.size - 1, std::memory_order_relaxed);
        s.start_round();
    }
    s.do_work(0);
    State::wait_until([&s] { return s.busy.load(std::memory_order_acquire) == 0; });
    if (s.error) std::rethrow_exception(s.error);
}

void Pool::barrier() {
    State& s = *state_;
    if (s.size == 1) return;
    const uint32_t phase = s.phase.load(std::memory_order_relaxed);
    if (s.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == s.size) {
        s.arrived.store(0, std::memory_order_relaxed);
        s.phase.store(phase + 1, std::memory_order_release);
        return;
    }
    State::wait_until([&s, phase] {
        return s.phase.load(std::memory_order_acquire) != phase || s.broken.load(std::memory_order_acquire);
    });
    if (s.phase.load(std::memory_order_acquire) == phase) throw BrokenBarrier();
}

}  // namespace barkfast
