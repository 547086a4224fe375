#include "barkfast/measure.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "barkfast/cpu_features.h"
#include "barkfast/kv.h"
#include "barkfast/network.h"
#include "barkfast/pack.h"
#include "buffer.h"
#include "input_rows.h"
#include "product.h"

namespace barkfast {
namespace {

double time_once(const std::function<void()>& pass) {
    const auto start = std::chrono::steady_clock::now();
    pass();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::vector<double> time_passes(int repeats, const std::function<void()>& pass) {
    std::vector<double> seconds;
    pass();
    for (int i = 0; i < repeats; ++i) seconds.push_back(time_once(pass));
    return seconds;
}

// Independent sums, so that only the reads take time.
constexpr int64_t kSums = 32;

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define BARKFAST_X86 1
// Inlined, and so compiled for the instruction set of each function that calls it.
#define ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define BARKFAST_X86 0
#define ALWAYS_INLINE inline
#endif

ALWAYS_INLINE uint64_t add_up(const uint64_t* p, int64_t n) {
    uint64_t sums[kSums] = {};
    for (int64_t i = 0; i + kSums <= n; i += kSums)
        for (int64_t k = 0; k < kSums; ++k) sums[k] += p[i + k];
    uint64_t total = 0;
    for (const uint64_t sum : sums) total += sum;
    return total;
}

uint64_t add_up_baseline(const uint64_t* p, int64_t n) { return add_up(p, n); }

#if BARKFAST_X86
__attribute__((target("avx2"))) uint64_t add_up_avx2(const uint64_t* p, int64_t n) { return add_up(p, n); }
#endif

auto choose_add_up() {
#if BARKFAST_X86
    if (cpu_features().avx2) return &add_up_avx2;
#endif
    return &add_up_baseline;
}

// Uniform numbers in [-size, size), the same every time.
std::vector<float> make_numbers(int64_t n, float size) {
    std::vector<float> numbers(static_cast<size_t>(n));
    uint32_t state = 1;
    for (float& x : numbers) {
        state = state * 1664525u + 1013904223u;
        x = size * (static_cast<float>(state >> 8) * 0x1p-23f - 1.0f);
    }
    return numbers;
}

void check_size(const char* name, int64_t size) {
    if (size < 1)
        throw std::invalid_argument(std::string(name) + " is " + std::to_string(size) + "; expected 1 or more");
}

// Repeat the first `bytes` of `data` until there are `copies` copies of them.
void repeat(uint8_t* data, int64_t bytes, int64_t copies) {
    for (int64_t i = 1; i < copies; ++i) std::memcpy(data + i * bytes, data, static_cast<size_t>(bytes));
}

// Call this before the memory is first written to.
void ask_for_large_pages(void* memory, int64_t bytes) {
#if defined(MADV_HUGEPAGE)
    constexpr uintptr_t kPage = 4096;
    const uintptr_t start = (reinterpret_cast<uintptr_t>(memory) + kPage - 1) / kPage * kPage;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(memory) + uintptr_t(bytes)) / kPage * kPage;
    // Without large pages it is slower, and nothing else, so ignore a failure.
    if (start < end) (void)madvise(reinterpret_cast<void*>(start), end - start, MADV_HUGEPAGE);
#else
    (void)memory, (void)bytes;
#endif
}

}  // namespace

std::vector<double> time_reads(Pool& pool, int64_t bytes, bool large_pages, int repeats) {
    check_size("bytes", bytes);
    const int64_t share = round_up(ceil_div(bytes / int64_t(sizeof(uint64_t)), pool.size()), kSums);
    const Buffer<uint64_t> memory(share * pool.size());
    std::vector<uint64_t> sums(size_t(pool.size()));
    if (large_pages) ask_for_large_pages(memory.data(), share * pool.size() * int64_t(sizeof(uint64_t)));
    const auto sum = choose_add_up();
    // Write to all pages: those never written may all map to the same page of zeros.
    const auto each_share = [&](auto work) { Pool::Session(pool).share(pool.size(), work); };
    each_share([&](int, int64_t i) { std::fill_n(memory.data() + i * share, share, uint64_t(1)); });
    auto seconds = time_passes(
        repeats, [&] { each_share([&](int, int64_t i) { sums[size_t(i)] = sum(memory.data() + i * share, share); }); });
    for (const uint64_t got : sums)
        if (got != uint64_t(share)) throw std::runtime_error("the sum of what was read is wrong");
    return seconds;
}

Times time_linear(Pool& pool, const Kernels& kernels, const LinearCase& what, int repeats) {
    check_size("rows", what.rows);
    check_size("cols", what.cols);
    check_size("inputs", what.inputs);
    const int64_t bytes = packed_bytes(what.format, what.rows, what.cols);
    const int64_t n_panels = panel_count(what.rows), padded = n_panels * kPanelRows;
    Times times;
    times.copies = std::max<int64_t>(1, ceil_div(what.least_bytes, bytes));
    times.bytes = bytes;

    const Buffer<uint8_t> panels(bytes * times.copies);
    if (what.large_pages) ask_for_large_pages(panels.data(), bytes * times.copies);
    const auto weights = make_numbers(what.rows * what.cols, 0.03f);
    const Source source{SourceType::f32, what.rows, what.cols, weights.data()};
    pack_matrix(source, what.format, panels.data(), pool.size());
    repeat(panels.data(), bytes, times.copies);

    const InputType type = what.inputs > 1 ? many_input(what.format, kernels) : decode_input(what.format);
    const InputRows x(what.inputs, what.cols, type);
    const auto numbers = make_numbers(what.inputs * what.cols, 1.0f);
    for (int64_t i = 0; i < what.inputs; ++i) x.set(kernels, type, i, what.cols, numbers.data() + i * what.cols);
    const Buffer<float> products(what.inputs * padded);
    Output y;
    y.data = products.data();
    y.stride = padded;

    Matrix matrix;
    matrix.format = what.format;
    matrix.rows = what.rows;
    matrix.cols = what.cols;
    matrix.panel_stride = panel_bytes(what.format, what.cols);
    const auto multiply_all = [&] {
        Pool::Session session(pool);
        const Input input = x.from(type, 0);
        Matrix copy = matrix;
        for (int64_t i = 0; i < times.copies; ++i) {
            copy.panels = panels.data() + i * bytes;
            if (what.inputs > 1)
                multiply(session, kernels, copy, input, what.inputs, y, 0, n_panels);
            else
                // As in a decode step.
                read_panels(session, copy, n_panels,
                            [&](int64_t first, int64_t last) { kernels.linear(copy, input, 1, y, first, last); });
        }
    };
    if (what.inputs > 1) {
        times.seconds = time_passes(repeats, multiply_all);
    } else {
        const auto sum = choose_add_up();
        const int64_t words = bytes * times.copies / int64_t(sizeof(uint64_t)), threads = pool.size();
        std::vector<uint64_t> sums(static_cast<size_t>(threads));
        const auto read_all = [&] {
            Pool::Session(pool).share(threads, [&](int, int64_t i) {
                const int64_t first = words * i / threads, last = words * (i + 1) / threads;
                sums[size_t(i)] = sum(reinterpret_cast<const uint64_t*>(panels.data()) + first, last - first);
            });
        };
        multiply_all();
        for (int i = 0; i < repeats; ++i) {
            times.read_seconds.push_back(time_once(read_all) / double(times.copies));
            times.seconds.push_back(time_once(multiply_all));
        }
        // Keeps the compiler from removing the reads.
        volatile uint64_t seen = sums[0];
        (void)seen;
    }
    for (double& seconds : times.seconds) seconds /= double(times.copies);
    return times;
}

Times time_attend(Pool& pool, const Kernels& kernels, const AttendCase& what, int repeats) {
    check_size("heads", what.n_head);
    check_size("positions", what.positions);
    if (what.head_dim < 1 || what.head_dim % kPanelRows)
        throw std::invalid_argument("the heads' size is " + std::to_string(what.head_dim) +
                                    "; expected a multiple of 16");
    if (what.format == Format::int4) throw std::invalid_argument("the cache's format is none of f32, bf16 and int8");
    KvCache cache;
    cache.format = what.format;
    cache.n_slots = 1;
    cache.n_head = what.n_head;
    cache.head_dim = what.head_dim;
    cache.capacity = cache_capacity(what.positions);
    Times times;
    // Keys and values.
    times.bytes = 2 * what.n_head * what.positions * (what.head_dim * cache.number_bytes() + cache.scale_bytes());
    times.copies = std::max<int64_t>(1, ceil_div(what.least_bytes, times.bytes));
    cache.n_layer = times.copies;

    const Buffer<uint8_t> keys(cache.total_bytes()), values(cache.total_bytes());
    cache.key_data = keys.data();
    cache.value_data = values.data();
    const auto numbers = make_numbers(what.positions * what.head_dim, 1.0f);
    for (int64_t head = 0; head < what.n_head; ++head)
        cache.write(0, 0, head, 0, what.positions, numbers.data(), numbers.data(), what.head_dim);
    const int64_t layer_bytes = cache.total_bytes() / cache.n_layer;
    repeat(keys.data(), layer_bytes, times.copies);
    repeat(values.data(), layer_bytes, times.copies);

    const int64_t room = round_up(what.positions, 64);
    const Buffer<float> scores(what.n_head * room), out(what.n_head * what.head_dim);
    times.seconds = time_passes(repeats, [&] {
        Pool::Session session(pool);
        for (int64_t layer = 0; layer < cache.n_layer; ++layer)
            session.share(what.n_head, [&](int, int64_t head) {
                kernels.attend(cache.keys(layer, 0, head), cache.values(layer, 0, head), what.positions, numbers.data(),
                               0.125f, out.data() + head * what.head_dim, scores.data() + head * room);
            });
    });
    for (double& seconds : times.seconds) seconds /= double(times.copies);
    return times;
}

}  // namespace barkfast
