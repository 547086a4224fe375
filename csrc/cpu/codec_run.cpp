#include <algorithm>
#include <cstring>
#include <mutex>

#include "codec_work.h"
#include "product.h"

namespace barkfast {

namespace {

// Weights of an LSTM step per work item. With fewer, handing the work over takes longer than reading them.
constexpr int64_t kStepFloats = 64 * 1024;

}  // namespace

void Codec::Layers::run(const Block& block) {
    const std::lock_guard<FairMutex> lock(mutex_);
    Pool::Session session(pool_);
    load(block.state);
    sum_codes(block);
    run_first(session, block);
    run_lstm(session, block);
    add_skip(session, block);
    int64_t rows = block.frames;
    for (size_t i = 0; i < stages_.size(); ++i) {
        const Stage& stage = stages_[i];
        const LayerInput& end = i + 1 < stages_.size() ? stages_[i + 1].upsampling.input : last_.input;
        const auto input = [&](size_t j) -> const LayerInput& {
            return j < stage.blocks.size() ? stage.blocks[j].first.input : end;
        };
        run_upsampling(session, block, stage.upsampling, rows, input(0));
        rows *= stage.upsampling.stride;
        for (size_t j = 0; j < stage.blocks.size(); ++j)
            run_residual(session, block, stage.blocks[j], rows, raw_[j % 2].data(), raw_[(j + 1) % 2].data(),
                         input(j + 1));
    }
    run_last(session, block);
    save(block.state, block);
}

void Codec::Layers::load(const State& state) const {
    const float* memory = state.memory.data();
    const auto take = [&](float* to, int64_t n) {
        std::memcpy(to, memory, size_t(n) * sizeof(float));
        memory += n;
    };
    for (const Remembered& each : remembered_)
        take(each.window->row(-each.window->history), each.window->history_floats());
    for (const Lstm& lstm : lstm_) take(lstm.cell.data(), lstm.hidden.channels);
}

void Codec::Layers::save(const State& state, const Block& block) const {
    float* memory = state.memory.data();
    const auto give = [&](const float* from, int64_t n) {
        std::memcpy(memory, from, size_t(n) * sizeof(float));
        memory += n;
    };
    for (const Remembered& each : remembered_)
        give(each.window->row(block.frames * each.rows - each.window->history), each.window->history_floats());
    for (const Lstm& lstm : lstm_) give(lstm.cell.data(), lstm.hidden.channels);
}

void Codec::Layers::sum_codes(const Block& block) const {
    const LayerInput& next = first_.input;
    for (int64_t frame = 0; frame < block.frames; ++frame) {
        float* y = next.row(frame);
        const int32_t* codes = block.codes + frame * block.codebooks;
        std::memcpy(y, tables_[0].data() + codes[0] * dimension_, size_t(dimension_) * sizeof(float));
        for (int64_t k = 1; k < block.codebooks; ++k)
            kernels_.add(tables_[size_t(k)].data() + codes[k] * dimension_, dimension_, y);
    }
    if (!block.state.begun) next.reflect(0, block.frames * next.channels);
}

void Codec::Layers::convolve(const Convolution& layer, int64_t row, int64_t rows, float* y, int64_t y_stride) const {
    const LayerInput& input = layer.input;
    for (size_t tap = 0; tap < layer.taps.size(); ++tap) {
        const Dense& dense = layer.taps[tap];
        const float* x = input.row(row - input.history + int64_t(tap) * layer.dilation);
        kernels_.linear(dense.matrix(), float_rows(x, input.channels), rows,
                        dense.to(y, y_stride, tap ? Epilogue::add : Epilogue::store), 0, dense.panels());
    }
}

// Write the activation of `n` floats to a block of the next layer's input, from float `start` on.
void Codec::Layers::activate(const Block& block, const float* x, int64_t n, const LayerInput& next,
                             int64_t start) const {
    kernels_.elu(x, n, next.row(0) + start);
    if (!block.state.begun) next.reflect(start, n);
}

void Codec::Layers::run_first(Pool::Session& session, const Block& block) {
    const LayerInput& input = first_.input;
    const Dense& dense = first_.taps[0];
    multiply(session, kernels_, dense.matrix(), float_rows(input.row(-input.history), input.channels), block.frames,
             dense.to(wide_.data(), dense.panels() * kPanelRows), 0, dense.panels());
}

void Codec::Layers::run_lstm(Pool::Session& session, const Block& block) {
    const float* x = wide_.data();
    for (const Lstm& lstm : lstm_) {
        const int64_t channels = lstm.hidden.channels;
        multiply(session, kernels_, lstm.input.matrix(), float_rows(x, channels), block.frames,
                 lstm.input.to(gates_.data(), 4 * channels), 0, lstm.input.panels());
        run_steps(session, lstm, block.frames);
        x = lstm.hidden.row(0);
    }
}

void Codec::Layers::run_steps(Pool::Session& session, const Lstm& lstm, int64_t steps) {
    const int64_t channels = lstm.hidden.channels, groups = channels / kPanelRows;
    const int64_t pieces = std::clamp<int64_t>(4 * channels * channels / kStepFloats, 1, session.size());
    const Matrix recurrent = lstm.recurrent.matrix();
    for (int64_t step = 0; step < steps; ++step) {
        float* gates = gates_.data() + step * 4 * channels;
        session.share(pieces, [&](int, int64_t piece) {
            const int64_t first = groups * piece / pieces, last = groups * (piece + 1) / pieces;
            for (int64_t i = first; i < last; ++i) {
                // Alternate the direction: the weights that were read last are still in the cache.
                const int64_t group = step % 2 ? first + last - 1 - i : i;
                kernels_.linear(recurrent, float_rows(lstm.hidden.row(step - 1), channels), 1,
                                lstm.recurrent.to(gates, 4 * channels, Epilogue::add), 4 * group, 4 * group + 4);
                kernels_.lstm_cell(gates + group * 4 * kPanelRows, kPanelRows, lstm.cell.data() + group * kPanelRows,
                                   lstm.hidden.row(step) + group * kPanelRows);
            }
        });
    }
}

void Codec::Layers::add_skip(Pool::Session& session, const Block& block) {
    const LayerInput& next = stages_.empty() ? last_.input : stages_[0].upsampling.input;
    const int64_t channels = next.channels;
    session.share(block.frames, [&](int, int64_t frame) {
        float* y = wide_.data() + frame * channels;
        kernels_.add(lstm_.back().hidden.row(frame), channels, y);
        activate(block, y, channels, next, frame * channels);
    });
}

void Codec::Layers::run_upsampling(Pool::Session& session, const Block& block, const Upsampling& layer, int64_t rows,
                                   const LayerInput& next) {
    const int64_t panels = layer.dense.panels(), width = panels * kPanelRows;
    const int64_t row_tiles = ceil_div(rows, kRowBlock), panel_tiles = ceil_div(panels, kPanelGroup);
    const int64_t channels = layer.input.channels;
    session.share(row_tiles * panel_tiles, [&](int, int64_t i) {
        const int64_t row = i / panel_tiles * kRowBlock, end = std::min(row + kRowBlock, rows);
        const int64_t first = i % panel_tiles * kPanelGroup, last = std::min(first + kPanelGroup, panels);
        float* y = raw_[0].data() + row * width;
        kernels_.linear(layer.dense.matrix(), float_rows(layer.input.row(row - 1), channels), end - row,
                        layer.dense.to(y, width), first, last);
        for (int64_t r = row; r < end; ++r) {
            const int64_t start = r * width + first * kPanelRows;
            activate(block, raw_[0].data() + start, (last - first) * kPanelRows, next, start);
        }
    });
}

void Codec::Layers::run_residual(Pool::Session& session, const Block& block, const ResidualBlock& layer, int64_t rows,
                                 const float* x, float* y, const LayerInput& next) {
    const int64_t channels = layer.first.input.channels;
    session.share(ceil_div(rows, kRowBlock), [&](int thread, int64_t i) {
        float* hidden = hidden_[size_t(thread)].data();
        const int64_t row = i * kRowBlock, n = std::min(kRowBlock, rows - row), start = row * channels;
        convolve(layer.first, row, n, hidden, layer.hidden);
        kernels_.elu(hidden, n * layer.hidden, hidden);
        const int64_t panels = layer.second.panels();
        if (layer.shortcut.panels())
            kernels_.linear(layer.shortcut.matrix(), float_rows(x + start, channels), n,
                            layer.shortcut.to(y + start, channels), 0, panels);
        else
            std::memcpy(y + start, x + start, size_t(n * channels) * sizeof(float));
        kernels_.linear(layer.second.matrix(), float_rows(hidden, layer.hidden), n,
                        layer.second.to(y + start, channels, Epilogue::add), 0, panels);
        activate(block, y + start, n * channels, next, start);
    });
}

void Codec::Layers::run_last(Pool::Session& session, const Block& block) {
    const LayerInput& input = last_.input;
    const int64_t samples = block.frames * hop, groups = ceil_div(samples, kLastSamples);
    const int64_t at_once = ceil_div(kRowBlock, 4), tiles = ceil_div(groups, at_once);
    session.share(tiles, [&](int, int64_t i) {
        const int64_t first = i * at_once, last = std::min(first + at_once, groups), start = first * kLastSamples;
        const int64_t end = std::min(last * kLastSamples, samples);
        if (end < last * kLastSamples)
            // The matrix has zero weights for these rows, but zero times a NaN left there by a longer block is NaN.
            std::memset(input.row(end), 0, size_t((last * kLastSamples - end) * input.channels) * sizeof(float));
        const Dense& dense = last_.taps[0];
        kernels_.linear(dense.matrix(), float_rows(input.row(start - input.history), kLastSamples * input.channels),
                        last - first, dense.to(samples_.data() + start, kLastSamples), 0, 1);
        std::memcpy(block.samples + start, samples_.data() + start, size_t(end - start) * sizeof(float));
    });
}

}  // namespace barkfast
