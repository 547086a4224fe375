// Packed matrices: panels of 16 rows, so that one load serves 16 outputs and memory is read sequentially.
//
// A matrix of (rows, cols) computes y[row] = sum over col of w[row][col] * x[col]. A panel holds 16 rows, stored as
// steps of 64 bytes:
//   f32    [cols][16]        one column per step
//   bf16   [cols / 2][16][2] two columns per step
//   int8   groups of 32 columns: first the scales of all groups, bf16, [groups][16], padded to 64 bytes; then per
//          group 8 steps of [16][4] bytes, each stored as weight + 128
//   int4   the same with 4 steps per group, the low half of byte i of step s is column 4 s + i of the group, the
//          high half column 16 + 4 s + i, each stored as weight + 8
// Padding rows, and columns that pad a step or a group, are zero weights.
#pragma once

#include <cstddef>
#include <cstdint>

namespace barkfast {

enum class Format : int { f32 = 0, bf16 = 1, int8 = 2, int4 = 3 };

constexpr int64_t kPanelRows = 16;
constexpr int64_t kStepBytes = 64;
// Columns that share a scale, in quantized weights and in quantized inputs.
constexpr int64_t kGroup = 32;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

constexpr bool is_quantized(Format format) { return format == Format::int8 || format == Format::int4; }
// Bytes of the scales at the start of a quantized panel, and of each group after them.
constexpr int64_t scale_bytes(int64_t cols) { return round_up(ceil_div(cols, kGroup) * kPanelRows * 2, kStepBytes); }
constexpr int64_t group_bytes(Format format) { return (format == Format::int8 ? 8 : 4) * kStepBytes; }
constexpr int64_t panel_bytes(Format format, int64_t cols) {
    return is_quantized(format) ? scale_bytes(cols) + ceil_div(cols, kGroup) * group_bytes(format)
                                : ceil_div(cols, format == Format::bf16 ? 2 : 1) * kStepBytes;
}
constexpr int64_t panel_count(int64_t rows) { return ceil_div(rows, kPanelRows); }

struct Matrix {
    Format format = Format::f32;
    int64_t rows = 0;
    int64_t cols = 0;
    const uint8_t* panels = nullptr;
    // Bytes from one panel to the next; more than panel_bytes if only part of a cache's positions is used.
    int64_t panel_stride = 0;
    // Scales of an int8 cache (see kv.h), else null.
    const float* scales = nullptr;
};

// Storage type of the inputs that a matrix is multiplied with, widest first.
enum class InputType : int { f32 = 0, bf16 = 1, int8 = 2 };

// Inputs of a product: rows of `cols` numbers, zero-padded to round_up(cols, kGroup).
struct Input {
    InputType type = InputType::f32;
    const void* data = nullptr;
    // Bytes from one row to the next.
    int64_t stride = 0;
    // int8 only: per group of 32 columns, the scale and the sum of the quantized numbers.
    const float* scales = nullptr;
    const int32_t* sums = nullptr;
    // Groups from one row to the next.
    int64_t group_stride = 0;
};

// What to do with a product.
enum class Epilogue : int { store = 0, add = 1, gelu = 2 };

struct Output {
    float* data = nullptr;
    // Floats from one row to the next.
    int64_t stride = 0;
    // Added to the product first; panel_count(rows) * 16 floats, or null.
    const float* bias = nullptr;
    // store: y = product; add: y += product; gelu: y = gelu(product).
    Epilogue then = Epilogue::store;
};

// Bytes of one row of `cols` inputs stored as `type`, a multiple of 64.
constexpr int64_t input_bytes(InputType type, int64_t cols) {
    return round_up(round_up(cols, kGroup) * (type == InputType::f32 ? 4 : type == InputType::bf16 ? 2 : 1), 64);
}

}  // namespace barkfast
