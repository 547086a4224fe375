// The functions of one instruction-set level, chosen once and called through this table.
//
// Pointers need no alignment. Where a comment says so, the caller pads widths to multiples of 16 floats.
#pragma once

#include <cstdint>

#include "barkfast/isa.h"
#include "barkfast/matrix.h"

namespace barkfast {

// How to draw one token from logits; see sample.
struct Draw {
    float temperature = 0;  // 0: the largest logit
    int top_k = 0;          // 0: off
    float top_p = 2;        // 1 or more: off
    uint64_t seed = 0;
    uint32_t stage = 0;   // 0 semantic, 1 coarse, 2 fine; part of the random counter
    uint32_t number = 0;  // index of the draw within (seed, stage)
};

struct Drawn {
    int32_t index = 0;   // of the drawn logit
    float last_p = 0;    // probability of the last logit, after filters and temperature; only on request
    bool finite = true;  // false: a logit was NaN or infinite, and nothing was drawn
};

struct Kernels {
    Isa isa;

    // Indexed by a matrix's format: the input type for many rows. int8 for quantized weights and f32 for others, but
    // bf16 where the level multiplies bf16 fastest.
    InputType many_inputs[4];

    // Whether quantized matrices are dequantized for many rows; more rows amortize it better.
    bool dequantizes;

    // Compute y[r][16 first .. 16 last) from w's panels first .. last - 1 and `rows` rows of x. Each output sums the
    // columns in order, for any number of rows and panels, so that a row's result does not depend on the other rows.
    //   f32 and bf16 matrices take f32 inputs, int8 and int4 take int8; each also takes its type in many_inputs.
    // Columns of y beyond w.rows, up to the end of the last panel, are written too.
    void (*linear)(const Matrix& w, const Input& x, int64_t rows, const Output& y, int64_t first, int64_t last);

    // y = (x - mean) / sqrt(variance + 1e-5) * weight + bias (bias may be null), over `width` (any) floats.
    void (*norm)(const float* x, const float* weight, const float* bias, int64_t width, float* y);

    // q = round(x / scale) in -127..127 with scale = max|x| / 127, one scale per group of 32; zeros up to
    // round_up(width, kGroup). sums[g] is the sum of q over group g. A group of zeros has scale 0; one with NaN or
    // infinity has scale NaN.
    void (*quantize)(const float* x, int64_t width, int8_t* q, float* scales, int32_t* sums);

    // Rounded to nearest even; zeros up to round_up(width, kGroup).
    void (*to_bf16)(const float* x, int64_t width, uint16_t* y);

    // p = exp(scale * (x - max x)) / sum, in place, over the first n of x; zeros from n to `padded`.
    void (*softmax)(float* x, int64_t n, int64_t padded, float scale);

    // One query's attention: out[dim] = softmax(scale * keys q) values, over the first n positions.
    // keys: (capacity, dim) and values: (dim, capacity), from KvCache; scores: scratch for round_up(n, 64) floats.
    void (*attend)(const Matrix& keys, const Matrix& values, int64_t n, const float* q, float scale, float* out,
                   float* scores);

    // y = x > 0 ? x : exp(x) - 1, n floats.
    void (*elu)(const float* x, int64_t n, float* y);

    // End of one LSTM step. gates: (4, width), in order i, f, g, o, before activation. Updates cell, writes hidden.
    void (*lstm_cell)(const float* gates, int64_t width, float* cell, float* hidden);

    // y += x, n floats.
    void (*add)(const float* x, int64_t n, float* y);

    // Draw one of n logits: apply top-p, top-k and temperature in this order, then take the largest logit / temperature
    // + Gumbel noise. The noise of index i depends only on (seed, stage, number, i). Ties go to the smallest index.
    // scratch: 2 * round_up(n, 16) floats.
    Drawn (*sample)(const float* logits, int64_t n, const Draw& draw, bool wants_last_p, float* scratch);
};

// Throws std::invalid_argument if the level is not supported.
const Kernels& kernels(Isa isa);

}  // namespace barkfast
