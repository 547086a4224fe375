// How fast the machine reads and the kernels work, each alone: what a benchmark compares the engine with.
#pragma once

#include <cstdint>
#include <vector>

#include "barkfast/kernels.h"
#include "barkfast/matrix.h"
#include "barkfast/pool.h"

namespace barkfast {

// Seconds per pass of adding up `bytes` of memory, a share per thread, after one pass that does not count; in large
// pages if they are wanted and the system gives them to those who ask.
std::vector<double> time_reads(Pool& pool, int64_t bytes, bool large_pages, int repeats);

struct LinearCase {
    Format format = Format::f32;
    int64_t rows = 0;
    int64_t cols = 0;
    // Rows of inputs, in the type that so many take: one as when decoding, more as in a prompt.
    int64_t inputs = 1;
    // As many copies of the matrix as are this large together, so that none waits in a cache.
    int64_t least_bytes = 0;
    // As weights have that were packed in this process; those mapped from a file have small ones.
    bool large_pages = false;
};

struct Times {
    // Matrices, or layers of a cache, worked through in one pass, and what is read of each.
    int64_t copies = 0;
    int64_t bytes = 0;
    // Per copy, an entry for each pass but the first, which does not count.
    std::vector<double> seconds;
    // The same of doing nothing but reading all that, in turn with the passes: other users of a machine's memory come
    // and go. Products of one row of inputs only.
    std::vector<double> read_seconds;
};

// Products of random numbers, copy after copy, all threads at one copy at a time as in a network.
// Throws std::invalid_argument for a case without numbers, std::bad_alloc.
Times time_linear(Pool& pool, const Kernels& kernels, const LinearCase& what, int repeats);

struct AttendCase {
    // f32 or bf16.
    Format format = Format::f32;
    int64_t n_head = 0;
    // A multiple of 16.
    int64_t head_dim = 0;
    // Attended to.
    int64_t positions = 0;
    // As many layers as are this large together.
    int64_t least_bytes = 0;
};

// One query's attention in all heads, layer after layer. Errors as for time_linear.
Times time_attend(Pool& pool, const Kernels& kernels, const AttendCase& what, int repeats);

}  // namespace barkfast
