// Speed of memory reads and of single kernels, as references that a benchmark compares the engine with.
#pragma once

#include <cstdint>
#include <vector>

#include "barkfast/kernels.h"
#include "barkfast/matrix.h"
#include "barkfast/pool.h"

namespace barkfast {

// Seconds per pass of summing `bytes` of memory, an equal share per thread, after one warm-up pass. With `large_pages`,
// uses large pages if the system grants them on request.
std::vector<double> time_reads(Pool& pool, int64_t bytes, bool large_pages, int repeats);

struct LinearCase {
    Format format = Format::f32;
    int64_t rows = 0;
    int64_t cols = 0;
    // Rows of inputs: one as in a decode step, more as in a prefill. They determine the input type.
    int64_t inputs = 1;
    // Copies of the matrix are made until they fill this many bytes, so that none stays in a CPU cache.
    int64_t least_bytes = 0;
    // As for weights packed in this process; weights mapped from a file have small pages.
    bool large_pages = false;
};

struct Times {
    // Matrices, or layers of a cache, per pass, and the bytes read of each.
    int64_t copies = 0;
    int64_t bytes = 0;
    // Seconds per copy, one entry per pass without the warm-up pass.
    std::vector<double> seconds;
    // The same for only reading that memory, alternating with the passes because the memory load of other processes
    // varies. Only for products of one row of inputs.
    std::vector<double> read_seconds;
};

// Time products of random numbers, copy after copy; all threads work on one copy at a time, as in a network.
// Throws std::invalid_argument for a size below 1, and std::bad_alloc.
Times time_linear(Pool& pool, const Kernels& kernels, const LinearCase& what, int repeats);

struct AttendCase {
    // f32, bf16 or int8.
    Format format = Format::f32;
    int64_t n_head = 0;
    // A multiple of 16.
    int64_t head_dim = 0;
    // Number of positions attended to.
    int64_t positions = 0;
    // Layers are added until they fill this many bytes.
    int64_t least_bytes = 0;
};

// Time one query's attention in all heads, layer after layer. Throws like time_linear.
Times time_attend(Pool& pool, const Kernels& kernels, const AttendCase& what, int repeats);

}  // namespace barkfast
