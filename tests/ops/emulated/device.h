// What the kernels need of a CUDA device, on a CPU: a block's threads are fibers that switch at every barrier and
// shuffle, and blocks run one after another. In place of the previous kernel, memory changes while a block waits.

#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define INFINITE __builtin_inff()

typedef unsigned int u32;
typedef unsigned long long u64;

using std::max;
using std::min;

struct Index {
    int x, y, z;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    u32 x, y;
};
struct alignas(16) uint4 {
    u32 x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }

// ------------------------------------------------------------------------------------------------------------ fibers

constexpr int MOST_THREADS = 1024, STACK_BYTES = 64 * 1024;

// A barrier for the lanes of a warp, or for a block's threads.
struct Meeting {
    int size = 0, arrived = 0;
    unsigned round = 0;
};

struct Fiber {
    ucontext_t context;
    jmp_buf place;
    std::unique_ptr<char[]> stack{new char[STACK_BYTES]};
    bool begun = false, done = false;
    unsigned shuffles = 0;
};

inline Fiber fibers[MOST_THREADS];
inline Meeting block_meeting, warp_meetings[MOST_THREADS / 32];
inline float lanes[MOST_THREADS / 32][2][32];
inline ucontext_t scheduler_context;
inline jmp_buf scheduler;
inline Index threadIdx, blockIdx, blockDim, gridDim;
inline void (*body)(void*);
inline void* body_argument;
alignas(128) inline char dynamic[SHARED_BYTES];

inline void fail(const char* what) {
    std::fprintf(stderr, "emulated block %d %d %d, thread %d: %s\n", blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x,
                 what);
    std::abort();
}

inline void yield() {
    if (!_setjmp(fibers[threadIdx.x].place)) _longjmp(scheduler, 1);
}

inline void meet(Meeting& meeting) {
    unsigned round = meeting.round;
    if (++meeting.arrived == meeting.size) {
        meeting.arrived = 0;
        meeting.round++;
    } else {
        while (meeting.round == round) yield();
    }
}

inline void begin_fiber() {
    body(body_argument);
    fibers[threadIdx.x].done = true;
    _longjmp(scheduler, 1);
}

inline void run_block(int threads) {
    block_meeting = {threads, 0, 0};
    for (int i = 0; i < threads; i++) {
        if (i % 32 == 0) warp_meetings[i / 32] = {min(32, threads - i), 0, 0};
        fibers[i].begun = fibers[i].done = false;
        fibers[i].shuffles = 0;
    }
    for (int left = threads, idle = 0; left;) {
        int before = left;
        for (int i = 0; i < threads; i++) {
            Fiber& fiber = fibers[i];
            if (fiber.done) continue;
            threadIdx = {i, 0, 0};
            if (!_setjmp(scheduler)) {
                if (fiber.begun) _longjmp(fiber.place, 1);
                fiber.begun = true;
                getcontext(&fiber.context);
                fiber.context.uc_stack.ss_sp = fiber.stack.get();
                fiber.context.uc_stack.ss_size = STACK_BYTES;
                fiber.context.uc_link = nullptr;
                makecontext(&fiber.context, begin_fiber, 0);
                setcontext(&fiber.context);
            }
            left -= fiber.done;
        }
        idle = left == before ? idle + 1 : 0;
        if (idle > 100000) fail("waits for threads that never come");
    }
}

// ----------------------------------------------------------------------------------------------- the previous kernel

// What memory holds before and after the previous kernel ends, where that differs.
struct Change {
    char* at;
    const char *before, *after;
    u64 bytes;
};
inline std::vector<Change> changes;
inline bool waited;

inline void launch_next() {}

inline float fresh(const float* p) { return *p; }
inline int fresh(const int* p) { return *p; }
inline float4 fresh4(const float* p) { return *reinterpret_cast<const float4*>(p); }
inline uint4 fresh_raw(const void* p) { return *static_cast<const uint4*>(p); }
inline uint2 fresh2(const void* p) { return *reinterpret_cast<const uint2*>(p); }

inline u32 arrive(u32* counter) { return (*counter)++; }

inline void wait_for_last() {
    // All threads have done the work that is allowed before the wait.
    meet(block_meeting);
    if (!waited) {
        for (const Change& change : changes) std::memcpy(change.at, change.after, change.bytes);
        waited = true;
    }
    meet(block_meeting);
}

// Prefetches into the L2 cache before the wait: the lowest address, the highest end, and the number of bytes.
inline u64 prefetched[3];

inline void prefetch(const void* from, u32 bytes) {
    u64 address = reinterpret_cast<u64>(from);
    if ((address | bytes) % 16) fail("a prefetch is not aligned");
    if (waited) return;
    prefetched[0] = prefetched[2] ? min(prefetched[0], address) : address;
    prefetched[1] = max(prefetched[1], address + bytes);
    prefetched[2] += bytes;
}

extern "C" void take_prefetched(u64* out) {
    std::memcpy(out, prefetched, sizeof prefetched);
    std::memset(prefetched, 0, sizeof prefetched);
}

// -------------------------------------------------------------------------------------------------------- operations

inline void __syncthreads() { meet(block_meeting); }

inline float __shfl_xor_sync(u32, float value, int step) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float* slots = lanes[warp][fibers[threadIdx.x].shuffles++ % 2];
    slots[lane] = value;
    meet(warp_meetings[warp]);
    return slots[lane ^ step];
}

inline float __shfl_sync(u32, float value, int from) {
    int warp = threadIdx.x / 32;
    float* slots = lanes[warp][fibers[threadIdx.x].shuffles++ % 2];
    slots[threadIdx.x % 32] = value;
    meet(warp_meetings[warp]);
    return slots[from];
}

inline float reciprocal(float x) { return 1 / x; }

inline float power_of_two(float x) { return std::exp2(x); }

inline float __uint_as_float(u32 bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline float __int_as_float(int bits) { return __uint_as_float(bits); }

inline int __float_as_int(float value) {
    int bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

inline int __shfl_xor_sync(u32 mask, int value, int step) {
    return __float_as_int(__shfl_xor_sync(mask, __int_as_float(value), step));
}

inline u32 __umulhi(u32 a, u32 b) { return static_cast<u64>(a) * b >> 32; }

inline float __fdiv_rn(float a, float b) { return a / b; }

inline u32 __byte_perm(u32 low, u32 high, u32 selector) {
    u64 bytes = static_cast<u64>(high) << 32 | low;
    u32 out = 0;
    for (int i = 0; i < 4; i++) out |= static_cast<u32>(bytes >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
    return out;
}

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

struct alignas(2) Bfloat {
    unsigned short bits;
};
struct alignas(2) Half {
    unsigned short bits;
};

inline void unpack(u32 pair, float& low, float& high, Half) {
    for (int i = 0; i < 2; i++) {
        unsigned short bits = pair >> 16 * i;
        _Float16 value;
        std::memcpy(&value, &bits, 2);
        (i ? high : low) = value;
    }
}

inline void store(Half* p, float value) {
    _Float16 rounded = value;
    std::memcpy(p, &rounded, 2);
}

inline void store(Bfloat* p, float value) {
    u32 bits;
    std::memcpy(&bits, &value, 4);
    p->bits = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

// Copies complete only in wait(): earlier reads do not see the data.
struct Copies {
    struct Piece {
        void* to;
        std::vector<char> content;
    };
    std::vector<Piece> pieces;
    u32 expected, asked;
    bool ready;

    void expect(u32 bytes) {
        pieces.clear();
        expected = bytes;
        asked = 0;
        ready = true;
    }

    void add(void* to, const void* from, u32 bytes) {
        if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from) | bytes) % 16)
            fail("a copy is not aligned");
        if (!waited) {
            const char* start = static_cast<const char*>(from);
            pieces.push_back({to, std::vector<char>(start, start + bytes)});
        } else {
            fail("a copy is asked for only after the wait");
        }
        asked += bytes;
    }

    void wait() {
        if (!ready) fail("waits for copies that nobody has asked for");
        if (asked != expected) fail("waits for other bytes than were asked for");
        for (const Piece& piece : pieces) std::memcpy(piece.to, piece.content.data(), piece.content.size());
        pieces.clear();
    }
};

// ------------------------------------------------------------------------------------------------------------ launch

// The block of a row that runs first; the others follow and wrap around.
inline int first_block;

template <class... Args, size_t... I>
void call(void (*kernel)(Args...), void** args, std::index_sequence<I...>) {
    kernel(*static_cast<std::decay_t<Args>*>(args[I])...);
}

template <class... Args>
void launch(void (*kernel)(Args...), const int* grid, int threads, void** args) {
    static void (*current)(Args...);
    current = kernel;
    body = [](void* values) { call(current, static_cast<void**>(values), std::index_sequence_for<Args...>()); };
    body_argument = args;
    gridDim = {grid[0], grid[1], grid[2]}, blockDim = {threads, 1, 1};
    for (blockIdx.z = 0; blockIdx.z < grid[2]; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < grid[1]; blockIdx.y++)
            for (int i = 0; i < grid[0]; i++) {
                blockIdx.x = (i + first_block) % grid[0];
                for (const Change& change : changes) std::memcpy(change.at, change.before, change.bytes);
                // NaN, to overwrite what an earlier block left there.
                std::memset(dynamic, 0xff, sizeof dynamic);
                waited = false;
                run_block(threads);
                if (!waited) fail("has ended without waiting for the kernel ahead");
            }
}

extern "C" void change_while_waiting(void* at, const void* before, const void* after, u64 bytes) {
    char* to = static_cast<char*>(at);
    const char *old = static_cast<const char*>(before), *coming = static_cast<const char*>(after);
    constexpr u64 PIECE = 256;
    for (u64 i = 0; i < bytes; i += PIECE) {
        u64 size = min(PIECE, bytes - i);
        if (!std::memcmp(old + i, coming + i, size)) continue;
        if (!changes.empty() && changes.back().at + changes.back().bytes == to + i)
            changes.back().bytes += size;
        else
            changes.push_back({to + i, old + i, coming + i, size});
    }
}

extern "C" void change_nothing() { changes.clear(); }

extern "C" void begin_with_block(int x) { first_block = x; }
