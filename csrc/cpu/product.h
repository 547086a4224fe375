// Products of a matrix with rows, split over a pool's threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "barkfast/kernels.h"
#include "barkfast/pool.h"

namespace barkfast {

// Work item of a product: rows whose inputs stay in a thread's L2 cache, and panels that stay there too while the rows
// are processed.
constexpr int64_t kRowBlock = 192;
constexpr int64_t kPanelGroup = 4;

// For quantized panels that are dequantized first, a work item has more rows: up to this many bytes of inputs.
constexpr int64_t kDequantizedBytes = 1024 * 1024;
constexpr int64_t kMostRows = 4 * kRowBlock;

inline int64_t rows_at_once(const Kernels& kernels, const Matrix& w, const Input& x) {
    if (!kernels.dequantizes || !is_quantized(w.format)) return kRowBlock;
    return std::clamp(kDequantizedBytes / x.stride / kRowBlock * kRowBlock, kRowBlock, kMostRows);
}

// The inputs from row `rows` on.
inline Input skip_rows(Input x, int64_t rows) {
    x.data = static_cast<const uint8_t*>(x.data) + rows * x.stride;
    if (x.scales) x.scales += rows * x.group_stride;
    if (x.sums) x.sums += rows * x.group_stride;
    return x;
}

inline Output skip_rows(Output y, int64_t rows) {
    y.data += rows * y.stride;
    return y;
}

// The matrix's rows from panel `panels` on.
inline Matrix skip_panels(Matrix w, int64_t panels) {
    w.panels += panels * w.panel_stride;
    w.rows -= panels * kPanelRows;
    return w;
}

// One phase: call work(thread, row, rows, first panel, last panel) for the pieces of a product of `rows` rows and
// panels first .. last - 1; a piece has up to `block` rows and `group` panels.
template <class Work>
void each_piece(Pool::Session& session, int64_t rows, int64_t block, int64_t first, int64_t last, int64_t group,
                const Work& work) {
    const int64_t groups = ceil_div(last - first, group);
    session.share(ceil_div(rows, block) * groups, [&](int thread, int64_t i) {
        const int64_t row = i / groups * block, panel = first + i % groups * group;
        work(thread, row, std::min(block, rows - row), panel, std::min(panel + group, last));
    });
}

// One phase: Kernels::linear over `rows` rows and panels first .. last - 1.
inline void multiply(Pool::Session& session, const Kernels& kernels, const Matrix& w, const Input& x, int64_t rows,
                     const Output& y, int64_t first, int64_t last) {
    each_piece(session, rows, rows_at_once(kernels, w, x), first, last, kPanelGroup,
               [&](int, int64_t row, int64_t n, int64_t from, int64_t to) {
                   kernels.linear(w, skip_rows(x, row), n, skip_rows(y, row), from, to);
               });
}

// Work item of a product with one or two rows: large enough to amortize taking it, small enough that the others do not
// wait long for a slow or preempted thread.
constexpr int64_t kReadBytes = 64 * 1024;
constexpr int64_t kMostReads = 8;

// One phase: call work(first, last) for pieces of panels 0 .. n - 1 of `w`, each panel once.
template <class Work>
void read_panels(Pool::Session& session, const Matrix& w, int64_t n, const Work& work) {
    const int64_t pieces =
        std::clamp<int64_t>(n * w.panel_stride / kReadBytes, session.size(), kMostReads * session.size());
    session.share(pieces, [&](int, int64_t i) {
        const int64_t first = n * i / pieces, last = n * (i + 1) / pieces;
        if (first < last) work(first, last);
    });
}

}  // namespace barkfast
