// The layers of EnCodec's decoder: weights as matrices, and buffers for the time-major rows that the layers read.
//
// Channels are zero-padded to multiples of 16; the padding stays zero through every layer.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "barkfast/codec.h"
#include "barkfast/matrix.h"
#include "buffer.h"

namespace barkfast {

// A matrix and its bias.
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
    // An output at `y` with this bias; the stride is in floats.
    Output to(float* y, int64_t stride, Epilogue then = Epilogue::store) const {
        return {y, stride, bias_.data(), then};
    }

  private:
    int64_t rows_ = 0;
    int64_t cols_ = 0;
    Buffer<float> weights_;
    Buffer<float> bias_;
};

// Input rows of floats, `stride` floats apart; they may overlap.
inline Input float_rows(const float* x, int64_t stride) {
    Input input;
    input.data = x;
    input.stride = stride * int64_t(sizeof(float));
    return input;
}

// A layer's input: the rows of one block, preceded by the `history` past rows that the layer needs.
struct LayerInput {
    int64_t history = 0;
    int64_t channels = 0;
    // Padding before a stream's first row: a reflection of the rows that follow, or zeros.
    bool reflects = false;
    Buffer<float> floats;

    LayerInput() = default;
    LayerInput(int64_t history, int64_t channels, int64_t rows, bool reflects)
        : history(history), channels(channels), reflects(reflects), floats((history + rows) * channels) {}

    float* row(int64_t r) const { return floats.data() + (history + r) * channels; }
    int64_t history_floats() const { return history * channels; }

    // In a stream's first block: reflect `n` floats of the block, from float `start` on, into the history.
    void reflect(int64_t start, int64_t n) const;
};

// A causal convolution. Without dilation, the rows of all taps are contiguous and are one matrix's input.
struct Convolution {
    int64_t dilation = 1;
    // One matrix, or one per tap (with dilation), the oldest tap first.
    std::vector<Dense> taps;
    LayerInput input;
};

// A transposed convolution whose kernel is twice its stride: two consecutive rows give `stride` outputs.
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
    // Has no panels if the shortcut is the identity.
    Dense shortcut;
};

struct Stage {
    Upsampling upsampling;
    std::vector<ResidualBlock> blocks;
};

// The rows of its matrices are grouped by 16 units: these units' input, forget, cell and output gates.
struct Lstm {
    Dense input;
    Dense recurrent;
    // Its outputs, preceded by the last output of the previous block.
    LayerInput hidden;
    Buffer<float> cell;
};

// The checkpoint's tensors; shapes are checked on access.
class CodecWeights {
  public:
    explicit CodecWeights(const std::map<std::string, Tensor>& tensors) : tensors_(tensors) {}

    // Throws std::invalid_argument if the tensor is missing or has another shape.
    const float* get(const std::string& name, const std::vector<int64_t>& shape) const;

  private:
    const std::map<std::string, Tensor>& tensors_;
};

// Build a layer for blocks of up to `rows` rows, from the tensors whose names begin with `name`.
Convolution build_convolution(const CodecWeights& weights, const std::string& name, int64_t in, int64_t out,
                              int64_t kernel, int64_t dilation, int64_t rows);
// The last convolution, with one output channel: its matrix computes 16 samples at once, from all rows that they need.
Convolution build_last_convolution(const CodecWeights& weights, const std::string& name, int64_t in, int64_t kernel,
                                   int64_t rows);
// A convolution with a kernel of one row.
Dense build_pointwise(const CodecWeights& weights, const std::string& name, int64_t in, int64_t out);
Upsampling build_upsampling(const CodecWeights& weights, const std::string& name, int64_t in, int64_t out,
                            int64_t stride, int64_t rows);
Lstm build_lstm(const CodecWeights& weights, const std::string& name, int64_t layer, int64_t width, int64_t rows);

// Samples per output row of the last convolution's matrix.
constexpr int64_t kLastSamples = kPanelRows;

constexpr int64_t fill_up(int64_t channels) { return round_up(channels, kPanelRows); }

}  // namespace barkfast
