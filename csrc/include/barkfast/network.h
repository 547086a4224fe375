// A GPT's weights: packed matrices, float32 vectors and embedding tables, in memory that the caller owns.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "barkfast/matrix.h"

namespace barkfast {

// Bias vectors that the checkpoint does not have are null.
struct LayerWeights {
    // Format of all matrices of the layer.
    Format format = Format::f32;
    const float* norm1_weight = nullptr;
    const float* norm1_bias = nullptr;
    // (3 * n_embd, n_embd): queries, keys, values.
    Matrix qkv;
    const float* qkv_bias = nullptr;
    // (n_embd, n_embd)
    Matrix out;
    const float* out_bias = nullptr;
    const float* norm2_weight = nullptr;
    const float* norm2_bias = nullptr;
    // (4 * n_embd, n_embd)
    Matrix fc;
    const float* fc_bias = nullptr;
    // (n_embd, 4 * n_embd)
    Matrix proj;
    const float* proj_bias = nullptr;
};

// An embedding table: (rows, cols), row-major, float32 or bfloat16.
struct Table {
    const void* data = nullptr;
    bool bf16 = false;
    int64_t rows = 0;
    int64_t cols = 0;

    // y = row, or y += row, `cols` floats.
    void read(int64_t row, float* y) const;
    void add(int64_t row, float* y) const;
};

struct NetworkSize {
    int64_t n_layer = 0;
    int64_t n_head = 0;
    int64_t n_embd = 0;
    int64_t block_size = 0;
};

// One tensor of the checkpoint.
//   "matrix": `format` as in matrix.h, rows and cols those of the weight.
//   "vector": float32, `rows` long, zero-padded to a multiple of 16; cols 1.
//   "table": format 0 is float32, 1 bfloat16.
struct Entry {
    std::string name;
    std::string kind;
    int format = 0;
    int64_t rows = 0;
    int64_t cols = 0;
    const void* data = nullptr;
};

struct Network : NetworkSize {
    std::vector<LayerWeights> layers;
    // One in a GPT; in a fine network one per codebook.
    std::vector<Table> tokens;
    Table positions;
    const float* norm_weight = nullptr;
    const float* norm_bias = nullptr;
    // (vocabulary, n_embd). One in a GPT; in a fine network one per codebook that it predicts.
    std::vector<Matrix> heads;

    int64_t head_dim() const { return n_embd / n_head; }
    // Format of the KV cache between steps: int8 if any layer is quantized, else pass_format().
    Format cache_format() const;
    // Format of keys and values during a prefill or a window: f32 if all layers are f32, else bf16.
    Format pass_format() const;
};

// Input type of a product of a few rows: int8 for quantized weights, else f32.
constexpr InputType decode_input(Format format) { return is_quantized(format) ? InputType::int8 : InputType::f32; }

// Build a network from `entries`, which have the checkpoint's names.
// Throws std::invalid_argument with the name of an entry that is missing or has the wrong shape, kind or format.
Network build_network(const NetworkSize& size, const std::vector<Entry>& entries);

}  // namespace barkfast
