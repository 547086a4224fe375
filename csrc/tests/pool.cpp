// Tests the thread pool; the most important file under ThreadSanitizer.
#include "barkfast/pool.h"

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>

#include "check.h"

#ifdef __linux__
#include <sched.h>
#endif
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

// Each item writes its own element of plain memory, and the items of the next phase read all elements: a phase that
// ends early is a data race.
bool exchange(Pool& pool, int rounds) {
    const int64_t n = 3 * pool.size() + 1;
    std::vector<int64_t> places(size_t(n), -1), wrong(size_t(n), 0);
    Pool::Session session(pool);
    for (int round = 0; round < rounds; ++round) {
        session.share(n, [&](int, int64_t i) { places[size_t(i)] = round * 100 + i; });
        session.share(n, [&](int, int64_t i) {
            for (int64_t k = 0; k < n; ++k) wrong[size_t(i)] += places[size_t(k)] != round * 100 + k;
        });
    }
    int64_t total = 0;
    for (int64_t w : wrong) total += w;
    return total == 0 && places[0] == (rounds - 1) * 100;
}

template <class Work>
std::string thrown_by(Pool& pool, int64_t n, const Work& work) {
    try {
        Pool::Session(pool).share(n, work);
    } catch (const std::exception& error) {
        return error.what();
    }
    return "nothing";
}

}  // namespace

TEST(pool_does_each_item_once) {
    for (int threads = 1; threads <= kLargest; ++threads) {
        note = size_of(threads);
        Pool pool(threads);
        CHECK(pool.size() == threads);
        const std::thread::id caller = std::this_thread::get_id();
        for (const int64_t n : {0, 1, 2, 5, 64, 1000}) {
            std::vector<int> counts(size_t(n), 0);
            std::vector<std::atomic<int>> inside(static_cast<size_t>(threads));
            std::atomic<bool> good{true};
            Pool::Session session(pool);
            for (int round = 0; round < 50; ++round)
                session.share(n, [&](int thread, int64_t i) {
                    if (thread < 0 || thread >= threads || inside[size_t(thread)]++ != 0) good = false;
                    if ((thread == 0) != (std::this_thread::get_id() == caller)) good = false;
                    ++counts[size_t(i)];
                    --inside[size_t(thread)];
                });
            for (int count : counts) CHECK(count == 50);
            CHECK(good);
        }
    }
}

TEST(pool_phases_follow_one_another) {
    for (int threads = 1; threads <= kLargest; ++threads) {
        note = size_of(threads);
        Pool pool(threads);
        for (int i = 0; i < 5; ++i) CHECK(exchange(pool, 100));
    }
}

// Items that wait for one another end only if each is run by its own thread.
TEST(pool_uses_all_threads) {
    for (int threads = 2; threads <= kLargest; ++threads) {
        note = size_of(threads);
        Pool pool(threads);
        Pool::Session session(pool);
        for (int round = 0; round < 20; ++round) {
            if (round % 5 == 4) sleep_ms(5);
            std::atomic<int> arrived{0};
            session.share(threads, [&](int, int64_t) {
                ++arrived;
                while (arrived != threads) std::this_thread::yield();
            });
            CHECK(arrived == threads);
        }
    }
}

TEST(pool_of_several_callers) {
    for (int threads = 1; threads <= kLargest; ++threads) {
        note = size_of(threads);
        Pool pool(threads);
        // Not atomic: turns must not overlap.
        int running = 0, turns = 0;
        bool overlapped = false;
        std::vector<std::thread> callers;
        for (int c = 0; c < 3; ++c)
            callers.emplace_back([&] {
                for (int i = 0; i < 50; ++i) {
                    Pool::Session session(pool);
                    if (running++ != 0) overlapped = true;
                    session.share(threads, [](int, int64_t) {});
                    --running, ++turns;
                }
            });
        for (std::thread& caller : callers) caller.join();
        CHECK(turns == 150);
        CHECK(!overlapped);
    }
}

// A caller that comes back at once does not get ahead of waiting callers, which are served in order.
TEST(pool_serves_callers_in_order) {
    Pool pool(2);
    std::vector<int> order;
    const auto note_caller = [&](int caller) {
        Pool::Session session(pool);
        order.push_back(caller);
    };
    std::vector<std::thread> callers;
    {
        Pool::Session session(pool);
        for (int i = 1; i <= 3; ++i) {
            callers.emplace_back(note_caller, i);
            sleep_ms(50);
        }
    }
    note_caller(4);
    for (std::thread& caller : callers) caller.join();
    CHECK(order == std::vector<int>({1, 2, 3, 4}));
}

TEST(pool_refuses_a_turn_within_a_turn) {
    Pool pool(2), another(2);
    for (const int64_t culprit : {0, 7})
        for (Pool* inner : {&pool, &another}) {
            const std::string error = thrown_by(pool, 8, [&](int, int64_t i) {
                if (i == culprit) Pool::Session session(*inner);
            });
            CHECK(error.find("within a session") != std::string::npos);
            CHECK(exchange(pool, 3));
        }
}

TEST(pool_sleeps_and_wakes) {
    for (int threads = 1; threads <= kLargest; ++threads) {
        note = size_of(threads);
        Pool pool(threads);
        for (int i = 0; i < 4; ++i) {
            sleep_ms(i * 10);
            CHECK(exchange(pool, 3));
        }
        // When the last item ends, the other threads are done and no longer spin.
        for (const int64_t late : {int64_t(0), int64_t(threads - 1)}) {
            Pool::Session(pool).share(threads, [&](int, int64_t i) {
                if (i == late) sleep_ms(20);
            });
            CHECK(exchange(pool, 3));
        }
    }
}

TEST(pool_ends_at_any_time) {
    for (int i = 0; i < 30; ++i) {
        Pool pool(1 + i % kLargest);
        if (i % 3 == 1) Pool::Session(pool).share(8, [](int, int64_t) {});
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
        for (const int64_t culprit : {0, 1, 30, 63}) {
            const std::string error = thrown_by(pool, 64, [&](int, int64_t i) {
                if (i == culprit) throw std::runtime_error("item " + std::to_string(i));
            });
            CHECK(error == "item " + std::to_string(culprit));
            CHECK(exchange(pool, 3));
        }
        const std::string error = thrown_by(pool, 64, [](int, int64_t) { throw std::runtime_error("all"); });
        CHECK(error == "all");
        CHECK(exchange(pool, 3));
    }
}

#ifdef __linux__
// A phase does not wait for threads that have no core to run on: phases that the caller can do alone take only its own
// time, without a scheduler time slice for each.
TEST(pool_beside_busy_threads) {
    cpu_set_t before, one;
    CHECK(sched_getaffinity(0, sizeof before, &before) == 0);
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu)
        if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
    // Threads started from here on share one core.
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    std::atomic<bool> done{false};
    std::vector<std::thread> busy;
    for (int i = 0; i < 3; ++i)
        busy.emplace_back([&] {
            while (!done) continue;
        });
    {
        Pool pool(3);
        const auto start = std::chrono::steady_clock::now();
        for (int i = 0; i < 10; ++i) CHECK(exchange(pool, 200));
        // Six threads compete for the core. Waiting for each other's time slices, 4000 phases would take at least 12 s.
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        note = std::to_string(seconds) + " s";
        CHECK(seconds < 6);
    }
    done = true;
    for (std::thread& thread : busy) thread.join();
    sched_setaffinity(0, sizeof before, &before);
}
#endif

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

// Threads that held or awaited a lock at the fork do not exist in the child.
TEST(pool_after_fork_in_a_turn) {
    Pool pool(3);
    std::atomic<bool> done{false};
    std::vector<std::thread> callers;
    for (int i = 0; i < 2; ++i)
        callers.emplace_back([&] {
            while (!done) Pool::Session(pool).share(3, [](int, int64_t) { sleep_ms(1); });
        });
    for (int i = 0; i < 10; ++i) {
        sleep_ms(3);
        const pid_t child = fork();
        if (child == 0) {
            // Ends a child that waits forever.
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
