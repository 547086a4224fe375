#include "codec_layers.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace barkfast {

namespace {

std::string format_shape(const std::vector<int64_t>& shape) {
    std::string text = "(";
    for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
    return text + ")";
}

}  // namespace

const float* CodecWeights::get(const std::string& name, const std::vector<int64_t>& shape) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) throw std::invalid_argument("the codec's weights have no " + name);
    if (found->second.shape != shape)
        throw std::invalid_argument("the codec's " + name + " is " + format_shape(found->second.shape) + ", expected " +
                                    format_shape(shape));
    return found->second.data;
}

void LayerInput::reflect(int64_t start, int64_t n) const {
    if (!reflects) return;
    // Row 0 is the edge, which a reflection does not repeat.
    const int64_t end = std::min(start + n, (history + 1) * channels);
    for (int64_t i = std::max(start, channels); i < end;) {
        const int64_t r = i / channels, stop = std::min(end, (r + 1) * channels);
        std::memcpy(row(-r) + i % channels, row(0) + i, size_t(stop - i) * sizeof(float));
        i = stop;
    }
}

Convolution build_convolution(const CodecWeights& weights, const std::string& name, int64_t in, int64_t out,
                              int64_t kernel, int64_t dilation, int64_t rows) {
    const float* weight = weights.get(name + ".conv.weight", {out, in, kernel});
    const float* bias = weights.get(name + ".conv.bias", {out});
    const int64_t channels = fill_up(in);
    const bool together = dilation == 1;
    Convolution layer;
    layer.dilation = dilation;
    for (int64_t tap = 0; tap < (together ? 1 : kernel); ++tap)
        layer.taps.emplace_back(out, together ? kernel * channels : channels);
    for (int64_t o = 0; o < out; ++o) {
        layer.taps[0].bias(o) = bias[o];
        for (int64_t i = 0; i < in; ++i)
            for (int64_t tap = 0; tap < kernel; ++tap) {
                const Dense& dense = layer.taps[size_t(together ? 0 : tap)];
                dense.weight(o, together ? tap * channels + i : i) = weight[(o * in + i) * kernel + tap];
            }
    }
    layer.input = LayerInput((kernel - 1) * dilation, channels, rows, true);
    return layer;
}

Convolution build_last_convolution(const CodecWeights& weights, const std::string& name, int64_t in, int64_t kernel,
                                   int64_t rows) {
    const float* weight = weights.get(name + ".conv.weight", {1, in, kernel});
    const float* bias = weights.get(name + ".conv.bias", {1});
    const int64_t channels = fill_up(in);
    Convolution layer;
    layer.taps.emplace_back(kLastSamples, (kernel + kLastSamples - 1) * channels);
    const Dense& dense = layer.taps[0];
    for (int64_t sample = 0; sample < kLastSamples; ++sample) {
        dense.bias(sample) = bias[0];
        for (int64_t i = 0; i < in; ++i)
            for (int64_t tap = 0; tap < kernel; ++tap)
                dense.weight(sample, (sample + tap) * channels + i) = weight[i * kernel + tap];
    }
    layer.input = LayerInput(kernel - 1, channels, round_up(rows, kLastSamples), true);
    return layer;
}

Dense build_pointwise(const CodecWeights& weights, const std::string& name, int64_t in, int64_t out) {
    const float* weight = weights.get(name + ".conv.weight", {out, in, 1});
    const float* bias = weights.get(name + ".conv.bias", {out});
    Dense dense(out, fill_up(in));
    for (int64_t o = 0; o < out; ++o) {
        dense.bias(o) = bias[o];
        for (int64_t i = 0; i < in; ++i) dense.weight(o, i) = weight[o * in + i];
    }
    return dense;
}

Upsampling build_upsampling(const CodecWeights& weights, const std::string& name, int64_t in, int64_t out,
                            int64_t stride, int64_t rows) {
    const float* weight = weights.get(name + ".conv.weight", {in, out, 2 * stride});
    const float* bias = weights.get(name + ".conv.bias", {out});
    const int64_t channels = fill_up(in), channels_out = fill_up(out);
    Upsampling layer;
    layer.stride = stride;
    layer.channels_out = channels_out;
    layer.dense = Dense(stride * channels_out, 2 * channels);
    for (int64_t tap = 0; tap < stride; ++tap)
        for (int64_t o = 0; o < out; ++o) {
            const int64_t row = tap * channels_out + o;
            layer.dense.bias(row) = bias[o];
            for (int64_t i = 0; i < in; ++i) {
                const float* taps = weight + (i * out + o) * 2 * stride;
                // A kernel spans two strides: its second half applies to the previous row, its first half to this row.
                layer.dense.weight(row, i) = taps[stride + tap];
                layer.dense.weight(row, channels + i) = taps[tap];
            }
        }
    layer.input = LayerInput(1, channels, rows, false);
    return layer;
}

Lstm build_lstm(const CodecWeights& weights, const std::string& name, int64_t layer, int64_t width, int64_t rows) {
    const std::string end = "_l" + std::to_string(layer);
    const float* input = weights.get(name + ".weight_ih" + end, {4 * width, width});
    const float* recurrent = weights.get(name + ".weight_hh" + end, {4 * width, width});
    const float* input_bias = weights.get(name + ".bias_ih" + end, {4 * width});
    const float* recurrent_bias = weights.get(name + ".bias_hh" + end, {4 * width});
    const int64_t channels = fill_up(width);
    Lstm lstm;
    lstm.input = Dense(4 * channels, channels);
    lstm.recurrent = Dense(4 * channels, channels);
    for (int64_t gate = 0; gate < 4; ++gate)
        for (int64_t unit = 0; unit < width; ++unit) {
            const int64_t row = (unit / kPanelRows * 4 + gate) * kPanelRows + unit % kPanelRows;
            const int64_t from = gate * width + unit;
            lstm.input.bias(row) = input_bias[from] + recurrent_bias[from];
            for (int64_t i = 0; i < width; ++i) {
                lstm.input.weight(row, i) = input[from * width + i];
                lstm.recurrent.weight(row, i) = recurrent[from * width + i];
            }
        }
    lstm.hidden = LayerInput(1, channels, rows, false);
    lstm.cell = Buffer<float>(channels);
    return lstm;
}

}  // namespace barkfast
