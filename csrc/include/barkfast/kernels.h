// The functions of one instruction-set level, chosen once and called through this table.
//
// Pointers need no alignment. Widths are filled up to multiples of 16 floats by the caller where it says so.
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
    uint32_t stage = 0;   // 0 semantic, 1 coarse, 2 fine: counts in the random numbers
    uint32_t number = 0;  // of the draw, within (seed, stage)
};

struct Drawn {
    int32_t index = 0;   // of the winning logit
    float last_p = 0;    // probability of the last logit, after filters and temperature; only if asked for
    bool finite = true;  // false: a logit was NaN or infinite, and nothing was drawn
};

struct Kernels {
    Isa isa;

    // By a matrix's format: how many rows at once are stored for it. Quantized for quantized weights and exactly for
    // others, but as bf16 where the level multiplies that best.
    InputType many_inputs[4];

    // Whether quantized matrices are dequantized for many rows, which pays the better the more rows there are.
    bool dequantizes;

    // y[r][16 first .. 16 last) from w's panels first .. last - 1 and `rows` rows of x. Each output is one sum over
    // the columns in their order, whatever the number of rows and panels, so that no row's result depends on another.
    //   f32 and bf16 matrices take f32 inputs; int8 and int4 take int8; each also what many_inputs says.
    // Columns of y beyond w.rows, up to the end of the last panel, are written too.
    void (*linear)(const Matrix& w, const Input& x, int64_t rows, const Output& y, int64_t first, int64_t last);

    // y = (x - mean) / sqrt(variance + 1e-5) * weight + bias (bias may be null), over `width` (any) floats.
    void (*norm)(const float* x, const float* weight, const float* bias, int64_t width, float* y);

    // q = round(x / scale) in -127..127 with scale = max|x| / 127, each group of 32 for itself; zeros up to
    // round_up(width, kGroup). sums[g] is the sum of q over group g. A group of zeros has scale 0; one with NaN or
    // infinity has scale NaN.
    void (*quantize)(const float* x, int64_t width, int8_t* q, float* scales, int32_t* sums);

    // Rounded to nearest even; zeros up to round_up(width, kGroup).
    void (*to_bf16)(const float* x, int64_t width, uint16_t* y);

    // p = exp(scale * (x - max x)) / sum, in place, over the first n of x; zeros from n to `padded`.
    void (*softmax)(float* x, int64_t n, int64_t padded, float scale);

    // One query's attention: out[dim] = softmax(scale * keys q) values, over the first n positions.
    // keys: (capacity, dim) and values: (dim, capacity), as KvCache gives them; scores: room for round_up(n, 64)
    // floats.
    void (*attend)(const Matrix& keys, const Matrix& values, int64_t n, const float* q, float scale, float* out,
                   float* scores);

    // x = x > 0 ? x : exp(x) - 1, n floats.
    void (*elu)(const float* x, int64_t n, float* y);

    // One LSTM step's end: gates (4, width) as i, f, g, o before their functions; cell is updated, hidden written.
    void (*lstm_cell)(const float* gates, int64_t width, float* cell, float* hidden);

    // y += x, n floats.
    void (*add)(const float* x, int64_t n, float* y);

    // Draw one of n logits: top-p, then top-k, then temperature, then the largest of logit / temperature + Gumbel
    // noise, the noise of index i being a function of (seed, stage, number, i) alone. Ties go to the smallest index.
    // scratch: 2 * round_up(n, 16) floats.
    Drawn (*sample)(const float* logits, int64_t n, const Draw& draw, bool wants_last_p, float* scratch);
};

// Throws std::invalid_argument if the level is not supported.
const Kernels& kernels(Isa isa);

}  // namespace barkfast
