// The layers of EnCodec's decoder: their weights as matrices over time-major rows, and the rows that they read.
//
// Channels are filled up to multiples of 16 by zeros, which stay zeros through every layer.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "barkfast/codec.h"
#include "barkfast/matrix.h"
#include "buffer.h"

namespace barkfast {

// A matrix and what is added to its products.
class Dense {
  public:
    Dense() = default;
    Dense(int64_t rows, int64_t cols)
        : rows_(round_up(rows, kPanelRows)), cols_(cols), weights_(rows_ * cols), bias_(rows_) {}

    float& weight(int64_t row, int64_t col) const {
        return weights_[(row / kPanelRows * cols_ + col) * kPanelRows + row % kPanelRows];
    }
    float& bias(int64_t row) const { return bias_[row]; }
    int64_t panels() const { return rows_ / kPanelRows; }

    Matrix matrix() const {
        Matrix matrix;
        matrix.format = Format::f32;
        matrix.rows = rows_;
        matrix.cols = cols_;
        matrix.panels = reinterpret_cast<const uint8_t*>(weights_.data());
        matrix.panel_stride = panel_bytes(Format::f32, cols_);
        return matrix;
    }
    // Where products go, and what is added to them; the stride in floats.
    Output to(float* y, int64_t stride, Then then = Then::store) const { return {y, stride, bias_.data(), then}; }

  private:
    int64_t rows_ = 0;
    int64_t cols_ = 0;
    Buffer<float> weights_;
    Buffer<float> bias_;
};

// Rows of floats, `stride` floats apart: they may overlap.
inline Input float_rows(const float* x, int64_t stride) {
    Input input;
    input.data = x;
    input.stride = stride * int64_t(sizeof(float));
    return input;
}

// What a layer reads: the rows of one block, and in front of them as many of the past as it looks back.
struct LayerInput {
    int64_t history = 0;
    int64_t channels = 0;
    // Where the past begins: a reflection of what follows it, or zeros.
    bool reflects = false;
    Buffer<float> floats;

    LayerInput() = default;
    LayerInput(int64_t history, int64_t channels, int64_t rows, bool reflects)
        : history(history), channels(channels), reflects(reflects), floats((history + rows) * channels) {}

    float* row(int64_t r) const { return floats.data() + (history + r) * channels; }
    int64_t history_floats() const { return history * channels; }

    // In a stream's first block: copy `n` floats of the block, from float `start` on, to where the past reflects them.
    void reflect(int64_t start, int64_t n) const;
};

// A causal convolution. Without dilation the rows of all taps follow each other, and are one matrix's input.
struct Convolution {
    int64_t dilation = 1;
    // One matrix, or one per tap, the oldest first.
    std::vector<Dense> taps;
    LayerInput input;
};

// A transposed convolution of twice its stride: `stride` outputs from the last two rows.
struct Upsampling {
    int64_t stride = 1;
    int64_t channels_out = 0;
    Dense dense;
    LayerInput input;
};

struct ResidualBlock {
    Convolution first;
    int64_t hidden = 0;
    Dense second;
    // Without panels: the input itself.
    Dense shortcut;
};

struct Stage {
    Upsampling upsampling;
    std::vector<ResidualBlock> blocks;
};

// Rows of its matrices by 16 units: these units' input, forget, cell and output gates.
struct Lstm {
    Dense input;
    Dense recurrent;
    // Its outputs, and in front of them the one before.
    LayerInput hidden;
    Buffer<float> cell;
};

// The checkpoint's tensors, checked as they are taken.
class CodecWeights {
  public:
    explicit CodecWeights(const std::map<std::string, Tensor>& tensors) : tensors_(tensors) {}

    // Throws std::invalid_argument if there is none of this name, or it has another shape.
    const float* get(const std::string& name, const std::vector<int64_t>& shape) const;

  private:
    const std::map<std::string, Tensor>& tensors_;
};

// A layer for blocks of up to `rows` rows, from tensors whose names begin with `name`.
Convolution build_convolution(const CodecWeights& weights, const std::string& name, int64_t in, int64_t out,
                              int64_t kernel, int64_t dilation, int64_t rows);
// The last one, with one output channel: its matrix gives 16 moments at once, from the rows that all of them need.
Convolution build_last_convolution(const CodecWeights& weights, const std::string& name, int64_t in, int64_t kernel,
                                   int64_t rows);
// A convolution that sees one row.
Dense build_pointwise(const CodecWeights& weights, const std::string& name, int64_t in, int64_t out);
Upsampling build_upsampling(const CodecWeights& weights, const std::string& name, int64_t in, int64_t out,
                            int64_t stride, int64_t rows);
Lstm build_lstm(const CodecWeights& weights, const std::string& name, int64_t layer, int64_t width, int64_t rows);

// Samples that the last convolution's matrix gives per row.
constexpr int64_t kLastSamples = kPanelRows;

constexpr int64_t fill_up(int64_t channels) { return round_up(channels, kPanelRows); }

}  // namespace barkfast
