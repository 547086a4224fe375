// The pool of threads; under ThreadSanitizer this is the file that counts.
#include "barkfast/pool.h"

#include <atomic>
#include <chrono>
#include <functional>
#include <stdexcept>
#include <thread>

#include "check.h"

#if defined(__unix__) && !defined(BARKFAST_NO_FORK)
#include <sys/wait.h>
#include <unistd.h>
#define CAN_FORK 1
#endif

using barkfast::Pool;
using tests::note;

namespace {

constexpr int kLargest = 4;

std::string size_of(int threads) { return std::to_string(threads) + " threads"; }

void sleep_ms(int ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

// Each thread writes its own place of plain memory and, after a barrier, reads those of all: a barrier that lets
// somebody through early is a data race.
bool exchange(Pool& pool, int rounds) {
    const int n = pool.size();
    std::vector<int> places(size_t(n), -1), wrong(size_t(n), 0);
    pool.run([&](int thread) {
        for (int round = 0; round < rounds; ++round) {
            places[size_t(thread)] = round * 10 + thread;
            pool.barrier();
            for (int i = 0; i < n; ++i) wrong[size_t(thread)] += places[size_t(i)] != round * 10 + i;
            pool.barrier();
        }
    });
    int total = 0;
    for (int w : wrong) total += w;
    return total == 0 && places[0] == (rounds - 1) * 10;
}

std::string thrown_by(Pool& pool, const std::function<void(int)>& work) {
    try {
        pool.run(work);
    } catch (const std::exception& error) {
        return error.what();
    }
    return "nothing";
}

}  // namespace

TEST(pool_runs_each_thread_once) {
    for (int threads = 1; threads <= kLargest; ++threads) {
        note = size_of(threads);
        Pool pool(threads);
        CHECK(pool.size() == threads);
        std::vector<int> counts(size_t(threads), 0);
        const std::thread::id caller = std::this_thread::get_id();
        bool first_is_caller = true;
        for (int i = 0; i < 300; ++i)
            pool.run([&](int thread) {
                ++counts[size_t(thread)];
                if (thread == 0 && std::this_thread::get_id() != caller) first_is_caller = false;
            });
        for (int count : counts) CHECK(count == 300);
        CHECK(first_is_caller);
    }
}

TEST(pool_barrier) {
    for (int threads = 1; threads <= kLargest; ++threads) {
        note = size_of(threads);
        Pool pool(threads);
        for (int i = 0; i < 5; ++i) CHECK(exchange(pool, 100));
    }
}

TEST(pool_of_several_callers) {
    for (int threads = 1; threads <= kLargest; ++threads) {
        note = size_of(threads);
        Pool pool(threads);
        // Not atomic: runs must not overlap.
        int running = 0, runs = 0;
        bool overlapped = false;
        std::vector<std::thread> callers;
        for (int c = 0; c < 3; ++c)
            callers.emplace_back([&] {
                for (int i = 0; i < 50; ++i)
                    pool.run([&](int thread) {
                        if (thread == 0 && running++ != 0) overlapped = true;
                        pool.barrier();
                        if (thread == 0) --running, ++runs;
                    });
            });
        for (std::thread& caller : callers) caller.join();
        CHECK(runs == 150);
        CHECK(!overlapped);
    }
}

// Who comes back at once does not get ahead of those who wait, nor does one of these of another.
TEST(pool_serves_callers_in_order) {
    Pool pool(2);
    std::vector<int> order;
    const auto note_caller = [&](int caller) {
        pool.run([&](int thread) {
            if (thread == 0) order.push_back(caller);
        });
    };
    std::vector<std::thread> callers;
    pool.run([&](int thread) {
        if (thread != 0) return;
        for (int i = 1; i <= 3; ++i) {
            callers.emplace_back(note_caller, i);
            sleep_ms(50);
        }
    });
    note_caller(4);
    for (std::thread& caller : callers) caller.join();
    CHECK(order == std::vector<int>({1, 2, 3, 4}));
}

TEST(pool_refuses_a_run_within_a_run) {
    Pool pool(2), another(2);
    for (int culprit : {0, 1})
        for (Pool* inner : {&pool, &another}) {
            const std::string error = thrown_by(pool, [&](int thread) {
                if (thread == culprit) inner->run([](int) {});
            });
            CHECK(error.find("within a run") != std::string::npos);
            CHECK(exchange(pool, 3));
        }
}

TEST(pool_parks_and_wakes) {
    for (int threads = 1; threads <= kLargest; ++threads) {
        note = size_of(threads);
        Pool pool(threads);
        for (int i = 0; i < 4; ++i) {
            sleep_ms(i * 10);
            CHECK(exchange(pool, 3));
        }
        // One that arrives late, when the others no longer spin.
        pool.run([&](int thread) {
            if (thread == pool.size() - 1) sleep_ms(20);
            pool.barrier();
        });
        CHECK(exchange(pool, 3));
    }
}

TEST(pool_ends_at_any_time) {
    for (int i = 0; i < 30; ++i) {
        Pool pool(1 + i % kLargest);
        if (i % 3 == 1) pool.run([](int) {});
        if (i % 3 == 2) sleep_ms(2);
        CHECK(pool.size() == 1 + i % kLargest);
    }
    for (int threads : {0, -3}) {
        bool refused = false;
        try {
            Pool pool(threads);
        } catch (const std::invalid_argument& error) {
            refused = std::string(error.what()).find(std::to_string(threads)) != std::string::npos;
        }
        CHECK(refused);
    }
}

TEST(pool_throws_what_was_thrown) {
    for (int threads = 1; threads <= kLargest; ++threads) {
        note = size_of(threads);
        Pool pool(threads);
        for (int culprit = 0; culprit < threads; ++culprit) {
            // The others are at a barrier, or on their way to one, that will never be full.
            const std::string error = thrown_by(pool, [&](int thread) {
                pool.barrier();
                if (thread == culprit) throw std::runtime_error("thread " + std::to_string(thread));
                for (int i = 0; i < 3; ++i) pool.barrier();
            });
            CHECK(error == "thread " + std::to_string(culprit));
            CHECK(exchange(pool, 3));
        }
        const std::string error = thrown_by(pool, [](int) { throw std::runtime_error("all"); });
        CHECK(error == "all");
        CHECK(exchange(pool, 3));
    }
}

TEST(pool_counts_cores) { CHECK(barkfast::physical_cores() >= 1); }

#ifdef CAN_FORK
TEST(pool_after_fork) {
    for (int threads : {1, 3}) {
        note = size_of(threads);
        Pool pool(threads);
        CHECK(exchange(pool, 2));
        const pid_t child = fork();
        // The child has none of the parent's threads.
        if (child == 0) _exit(exchange(pool, 2) ? 0 : 1);
        int status = -1;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
        CHECK(exchange(pool, 2));
    }
}

// Whoever held or awaited a lock at the fork is not in the child.
TEST(pool_after_fork_in_a_run) {
    Pool pool(3);
    std::atomic<bool> done{false};
    std::vector<std::thread> callers;
    for (int i = 0; i < 2; ++i)
        callers.emplace_back([&] {
            while (!done) pool.run([](int) { sleep_ms(1); });
        });
    for (int i = 0; i < 10; ++i) {
        sleep_ms(3);
        const pid_t child = fork();
        if (child == 0) {
            // Ends a child that waits for ever.
            alarm(20);
            bool good[2] = {false, false};
            std::thread other([&] { good[1] = exchange(pool, 2); });
            good[0] = exchange(pool, 2);
            other.join();
            _exit(good[0] && good[1] ? 0 : 1);
        }
        int status = -1;
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    done = true;
    for (std::thread& caller : callers) caller.join();
}
#endif
