// A matrix times many rows, shared out among a team.
#pragma once

#include <algorithm>
#include <cstdint>

#include "barkfast/kernels.h"
#include "team.h"

namespace barkfast {

// What one thread takes at a time: so many rows, whose inputs stay in its second cache, and so many panels, which stay
// there too while the rows are gone through.
constexpr int64_t kRowBlock = 192;
constexpr int64_t kPanelGroup = 4;

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

// One phase: call work(row, rows, first panel, last panel) for the pieces of a product of `rows` rows and panels first
// .. last - 1, so many rows and `group` panels at a time, each on one thread.
template <class Work>
void each_piece(Team& team, int thread, int64_t rows, int64_t first, int64_t last, int64_t group, const Work& work) {
    const int64_t groups = ceil_div(last - first, group);
    team.share(thread, ceil_div(rows, kRowBlock) * groups, [&](int64_t i) {
        const int64_t row = i / groups * kRowBlock, panel = first + i % groups * group;
        work(row, std::min(kRowBlock, rows - row), panel, std::min(panel + group, last));
    });
}

// One phase: Kernels::linear over `rows` rows and panels first .. last - 1.
inline void multiply(Team& team, int thread, const Kernels& kernels, const Matrix& w, const Input& x, int64_t rows,
                     const Output& y, int64_t first, int64_t last) {
    each_piece(team, thread, rows, first, last, kPanelGroup, [&](int64_t row, int64_t n, int64_t from, int64_t to) {
        kernels.linear(w, skip_rows(x, row), n, skip_rows(y, row), from, to);
    });
}

}  // namespace barkfast
